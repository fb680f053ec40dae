"""Stage 5: train and test Pix2Pix. You draw the sketch, it colours it.

A U-Net turns a sketch into a picture; a PatchGAN is shown the sketch with either the
real picture or the generated one and learns to tell; the U-Net learns to be close to
the real picture (L1) and to pass for real (cGAN) at once. Isola et al. 2017,
"Image-to-Image Translation with Conditional Adversarial Networks", sections 3 and 6.2.

    python 05_pix2pix_train.py --epochs 10
    python 05_pix2pix_train.py --dataset my/folder --direction BtoA --out runs/mine
    python 05_pix2pix_train.py --dataset my/folder --size 256x512 --filters 32 --out runs/mine
    python 05_pix2pix_train.py --dataset my/folder --start-from runs/05_pix2pix --out runs/mine
    python 05_pix2pix_train.py --compare runs/l1 runs/cgan runs/f32

Writes under runs/05_pix2pix: index.html (a page of all results, for a browser),
result.png (sketch | generated | real, pairs never trained on), losses.csv, losses.png,
metrics.csv, samples/ after each epoch, validation/ (all pictures of the page), the
weights, and in saved/ 1.4 GB of checkpoints (2.1 GB while one is written). Run again, it goes on
where it stopped. Ten epochs of the 213 pairs take 15 to 30 minutes on 2 cores.
"""

import functools
import html
import urllib.parse
from pathlib import Path

import common
from common import AdversarialModel, PatchGAN, UNet, discriminator_losses, generate, generator_loss, minimise

import keras
import tensorflow as tf

# For both networks (section 3.3). The section also halves the discriminator's loss, to slow it
# down; but Adam divides a gradient by its average size, so half the loss makes the same steps.
LEARNING_RATE, BETA_1 = 2e-4, 0.5
LAMBDA_L1 = 100.0
RESULT_ROWS = 6
SAMPLE_ROWS = 4


class Pix2Pix(AdversarialModel):
    """The U-Net and the PatchGAN, and the game between them.

    Args:
        loss: "l1+cgan" (the paper's), or "cgan" or "l1" alone.
        lambda_l1: the weight of L1 beside the adversarial loss, which has 1.
        filters: channels of the first layer of both networks.
        norm: "batch" (the paper's), or "instance": each picture of a batch is normalised by itself.
    """

    def __init__(self, loss="l1+cgan", lambda_l1=LAMBDA_L1, filters=common.FILTERS, norm="batch", **kwargs):
        super().__init__(**kwargs)
        self.terms = loss.split("+")
        self.lambda_l1 = lambda_l1
        self.generator = UNet(filters, norm=norm, name="generator")
        self.discriminator = PatchGAN(filters, norm=norm, name="discriminator")
        picture = tf.zeros((1, *common.IMAGE_SIZE, 3))  # the weights are the same for every size
        self.generator(picture, training=False)  # the first call makes the weights
        self.discriminator(picture, picture, training=False)
        self.built = True

    def train_step(self, pair):
        condition, real = pair  # (B, 256, 256, 3) each, by default
        losses = {}
        with tf.GradientTape() as g_tape, tf.GradientTape() as d_tape:
            fake = self.generator(condition, training=True)
            g_loss = 0.0
            losses["g_l1"] = tf.reduce_mean(tf.abs(real - fake))
            if "l1" in self.terms:
                g_loss += self.lambda_l1 * losses["g_l1"]
            if "cgan" in self.terms:
                real_logits = self.discriminator(condition, real, training=True)  # (B, 30, 30, 1)
                fake_logits = self.discriminator(condition, fake, training=True)
                losses["g_adversarial"] = generator_loss(fake_logits)
                losses["d_real"], losses["d_fake"] = discriminator_losses(real_logits, fake_logits)
                g_loss += losses["g_adversarial"]
                d_loss = losses["d_real"] + losses["d_fake"]

        # Generator: minimise lambda |x - G(c)| - log D(c, G(c)).
        minimise(g_loss, g_tape, self.generator, self.generator_optimizer)
        # Discriminator: minimise -log D(c, x) - log(1 - D(c, G(c))).
        if "cgan" in self.terms:
            minimise(d_loss, d_tape, self.discriminator, self.discriminator_optimizer)
        return losses

    def test_step(self, pair):
        condition, real = pair  # (1, 256, 256, 3) each
        return scores(generate(self.generator, condition), real)


@tf.function
def scores(picture, real):
    """Scores a picture against the real one, both (1, height, width, 3) in [-1, 1].

    Returns:
        l1: mean distance, from 0 to 2. psnr: in dB. ssim: at most 1, for equal pictures (Wang
        et al. 2004); its formula is made for pictures that begin at 0, so here of [0, 1].
    """
    unit_picture, unit_real = picture * 0.5 + 0.5, real * 0.5 + 0.5
    return {
        "l1": tf.reduce_mean(tf.abs(real - picture)),
        "psnr": tf.image.psnr(unit_real, unit_picture, max_val=1.0)[0],
        "ssim": tf.image.ssim(unit_real, unit_picture, max_val=1.0)[0],
    }


def validation_pairs(paths, direction, *, size=common.IMAGE_SIZE, labels=False):
    """Returns a dataset of (condition, target), each (1, 256, 256, 3): one pair at a time."""
    files = tf.data.Dataset.from_tensor_slices(paths)
    stacks = files.map(lambda path: common.resize(common.read_stack(path, direction), size, labels))
    return stacks.map(common.split_stack).batch(1).prefetch(tf.data.AUTOTUNE)


def describe_conditions(dataset, paths, direction, size=common.IMAGE_SIZE):
    """Finds out what a run's conditions are, for those who will draw or give it others.

    Args:
        paths: files of the training pairs, of which 100 at most are looked at.

    Returns:
        "kind": one of common.CONDITIONS. "line_width": of sketches, the median in pixels of `size`, or
        None. "colours": of label maps, [["#rrggbb", the class's name or ""], ...]. "classes": the
        numbers of these classes where the label maps had numbers. "halves": how they are resized.
    """
    kind, about = common.condition_kind(dataset, paths, direction), common.describe_dataset(dataset)
    found = {"kind": kind, "line_width": None, "colours": []}
    form = {"size": size, "labels": kind == "labels"}
    some = [str(path) for path in common.spread(paths, 100)]
    conditions = (condition for condition, _ in validation_pairs(some, direction, **form))
    if kind == "sketch":
        gray = (tf.image.rgb_to_grayscale(condition[0] * 0.5 + 0.5) for condition in conditions)
        found["line_width"] = round(common.line_width(gray), 1) or None
    elif kind == "labels":
        found["colours"] = about.get("colours") or main_colours(conditions)
        if "classes" in about:
            found["classes"] = about["classes"]
    method = "nearest neighbour" if kind == "labels" else "antialiased"
    squashed = f"squashed to {common.size_text(size)}"
    return found | {"halves": f"{squashed}, conditions by {method}, targets antialiased"}


def main_colours(conditions):
    """Returns [["#rrggbb", ""], ...], the commonest first, of label maps (1, height, width, 3) in [-1, 1].

    JPEG surrounds each with shades; those near a commoner one, and rare ones, are left out.
    """
    weights = tf.constant([65536.0, 256.0, 1.0])  # exact in float32: below 2^24
    codes = [tf.reduce_sum(tf.round((c + 1.0) * 127.5) * weights, axis=-1) for c in conditions]
    found, _, counts = tf.unique_with_counts(tf.reshape(tf.concat(codes, 0), [-1]))
    enough = 1e-3 * float(tf.reduce_sum(counts))
    colours = []
    for place in tf.argsort(counts, direction="DESCENDING")[:1000]:
        colour = bytes.fromhex(f"{int(found[place]):06x}")
        far = all(max(abs(a - b) for a, b in zip(colour, other)) >= 48 for other in colours)
        if far and int(counts[place]) > enough:
            colours.append(colour)
    return [[f"#{colour.hex()}", ""] for colour in colours]


def refuse_too_large(args):
    """Raises UserError if there is no memory to train under the flags; the system would say nothing.

    What it takes is as measured by `python benchmarks/sizes.py`, to a tenth: for each weight its
    gradient, Adam's two means and room to work in, and for each pixel the maps of all layers.
    """
    weights = 57.2e6 * (args.filters / common.FILTERS) ** 2
    pixels = args.batch_size * args.size[0] * args.size[1]
    needed, free = 1e9 + 20 * weights + 35 * args.filters * pixels, common.free_memory()
    if needed > free:
        flags = f"--size {common.size_text(args.size)} --filters {args.filters}"
        flags += f" --batch-size {args.batch_size}"
        room = f"about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free"
        raise common.UserError(f"{flags}: would take {room}; give smaller ones")


def load_networks(run, filters=common.FILTERS):
    """Reads the networks of an earlier run, to start another one from.

    The earlier run may be of another size: the weights are the same for every size.

    Both are in its newest checkpoint. A run that was copied without its checkpoints, or one of L1
    alone, whose discriminator has learned nothing, gives the generator alone.

    Returns:
        A Pix2Pix; and for options.json, a dict of the run, its epochs, and the networks to take.

    Raises:
        UserError: there is no such run, or its weights are damaged or of another architecture.
    """
    options, metrics = common.read_run(run)
    if not metrics:
        raise common.UserError(f"--start-from {run}: its first epoch has not ended; finish that first")
    if options["flags"]["--filters"] != filters:
        theirs = options["flags"]["--filters"]
        raise common.UserError(f"--start-from {run}: has other networks; give --filters {theirs}")
    model, networks = Pix2Pix(filters=filters), ["generator"]
    checkpoints = common.Checkpoints(run, [])
    names = checkpoints.names()
    if names:
        folder = checkpoints.folder / names[-1]
        try:
            with common.filtering_logs(), common.working_in(folder):
                part = tf.train.Checkpoint(variables=[variable.value for variable in model.variables])
                part.read("state").assert_existing_objects_matched().expect_partial()
        except (OSError, *common.NO_MEMORY):
            raise  # the checkpoint is not to blame
        except (ValueError, AssertionError) as error:
            raise common.UserError(f"--start-from {run}: has networks of another architecture") from error
        except Exception as error:  # TensorFlow's reader knows many kinds of damage
            cure = "repeat the command of that run, which mends it"
            raise common.UserError(f"--start-from {run}: {folder} is damaged; {cure}") from error
        if "cgan" in options["flags"].get("--loss", "l1+cgan"):
            networks.append("discriminator")
    else:
        model.generator = common.load_generator(run)[0]
    return model, {"run": str(run), "epochs": int(metrics[-1]["epoch"]), "networks": networks}


def start_from(args):
    """Reads what --start-from names, before anything is written.

    A run that goes on has these weights in its checkpoints already, and the earlier run may be gone.

    Returns:
        As `load_networks`; None instead of the networks when the run goes on.
    """
    if args.start_from.resolve() == args.out.resolve():
        raise common.UserError(f"--start-from {args.start_from}: give the new run another --out")
    if common.Checkpoints(args.out, []).names() and not args.fresh:
        return None, common.read_run(args.out)[0]["data"].get("started from")
    earlier = load_networks(args.start_from, args.filters)
    keras.backend.clear_session()  # the names of layers, which the file of weights has, begin anew
    return earlier


def parse_flags():
    """Returns the parsed flags."""
    parser = common.trainer_arguments(__doc__, epochs=10, batch_size=1, out="05_pix2pix")
    common.pair_arguments(parser)
    add = parser.others.add_argument
    help_text = "what the generator is trained by (l1+cgan)"
    add("--loss", choices=["l1+cgan", "cgan", "l1"], default="l1+cgan", help=help_text)
    lambda_type = common.number(0, 1e6)
    add("--lambda-l1", type=lambda_type, default=LAMBDA_L1, help=f"of L1 in l1+cgan ({LAMBDA_L1:g})")
    help_text = "how training pairs are varied (jitter, the paper's)"
    add("--augment", choices=list(common.AUGMENTATIONS), default="jitter", help=help_text)
    common.add_filters(parser)
    help_text = "what a batch of several is normalised over: all its pictures, or each by itself (batch)"
    add("--norm", choices=list(common.NORMS), default="batch", help=help_text)
    help_text = "begin with the weights of an earlier run, of any data, instead of random ones"
    add("--start-from", type=common.file_path, metavar="RUN", help=help_text)
    help_text = "no training: draw compare.png of finished runs, in --out (runs/05_compare)"
    add("--compare", type=common.file_path, nargs="+", metavar="RUN", help=help_text)
    args = parser.parse_args()
    if args.compare and args.out == parser.get_default("out"):
        args.out = Path("runs/05_compare")
    return args


def main():
    args = parse_flags()
    if args.compare:
        compare(args.compare, args.out)
        return
    del args.compare  # it is no setting of a run
    common.set_devices(args)
    refuse_too_large(args)

    args.direction = args.direction or common.usual_direction(args.dataset)  # kept in options.json
    pairs = common.find_pairs(args.dataset)
    steps = common.epoch_steps(args, len(pairs["train"]))
    problems, checks = common.check_pictures(pairs["train"] + pairs["val"], args.out)
    common.refuse_unreadable(f"--dataset {args.dataset}", problems)
    hashes = {path: check[-1] for path, check in checks.items()}
    common.warn_of_shared(pairs, hashes)
    data = {name: len(paths) for name, paths in pairs.items()}
    data["condition"] = describe_conditions(args.dataset, pairs["train"], args.direction, args.size)
    form = {"size": args.size, "labels": data["condition"]["kind"] == "labels"}
    earlier = None
    if args.start_from:
        earlier, data["started from"] = start_from(args)
    run = common.start_run(args, data, hashes, checks)

    # The game: U-Net and PatchGAN, an optimiser each, batches of augmented pairs.
    model = Pix2Pix(args.loss, args.lambda_l1, args.filters, args.norm)
    if earlier:
        for name in data["started from"]["networks"]:
            for variable, value in zip(getattr(model, name).weights, getattr(earlier, name).weights):
                variable.assign(value)
        del earlier
    model.set_optimizers(common.adam(LEARNING_RATE, BETA_1), common.adam(LEARNING_RATE, BETA_1))

    def batches(first_step, last_step):
        span = {"first_step": first_step, "last_step": last_step, "batch_size": args.batch_size}
        kind = {"seed": args.seed, "direction": args.direction, "augment": args.augment}
        return common.training_pairs(pairs["train"], **span, **kind, **form)

    validation = validation_pairs(pairs["val"], args.direction, **form)

    # Scores mean something beside those of doing nothing: the condition against the real picture.
    @functools.cache
    def baseline():
        return common.mean_scores([scores(*pair) for pair in validation], "condition_")

    def draw(path, count=SAMPLE_ROWS):
        chosen = validation_pairs(common.spread(pairs["val"], count), args.direction, **form)
        rows = [[sketch[0], generate(model.generator, sketch)[0], real[0]] for sketch, real in chosen]
        common.save_grid(path, rows, titles=[data["condition"]["kind"], "generated", "real"])

    tests = {"validation": validation, "baseline": baseline}
    metrics = common.train(model, run, batches, args, steps_per_epoch=steps, draw=draw, **tests)
    draw(run / "result.png", RESULT_ROWS)
    write_page(run, model, pairs["val"], args.direction, **form)
    print_results(run, metrics[-1], data["condition"]["kind"])


def print_results(run, last, kind):
    """Prints the scores of the last epoch, a row of metrics.csv, and the files to look at."""
    condition = {"labels": "label map", "picture": "condition"}.get(kind, kind)
    print(f"Validation after epoch {last['epoch']:.0f} (and what the {condition} itself scores):")
    print(f"  L1 {last['val_l1']:.4f} ({last['condition_l1']:.4f})")
    print(f"  PSNR {last['val_psnr']:.2f} dB ({last['condition_psnr']:.2f})")
    print(f"  SSIM {last['val_ssim']:.4f} ({last['condition_ssim']:.4f})")
    print(
        f"{run / 'index.html'}  all results on one page, for a browser\n"
        f"{run / 'result.png'}  {kind} | generated | real, pairs never trained on\n"
        f"{run / 'losses.png'}  from losses.csv and metrics.csv\n"
        f"{run / 'samples'}  some of the same pairs after each epoch\n"
        f"{run / 'generator.weights.h5'}\n"
        f"Look at index.html: which colours does the {condition} tell, and which are guessed?\n"
        f'Next: python 06_sketch_pad.py --run "{run}", to draw; or once more with --loss l1 and another --out'
    )


# === The page of results: from here on, nothing is about training ===========

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  :root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
  body {{ margin: 0 auto; padding: 1rem; max-width: 80rem }}
  img {{ max-width: 100%; height: auto; background: white }}
  table {{ border-collapse: collapse }}
  td, th {{ padding: .1rem .8rem .1rem 0; text-align: left; overflow-wrap: anywhere }}
  .pairs {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)) }}
  .pairs {{ gap: 1.5rem }}
  figure {{ margin: 0; display: grid; grid-template-columns: repeat(3, 1fr); gap: 2px }}
  figcaption {{ grid-column: 1 / 4; overflow-wrap: anywhere }}
</style>
<h1>{title}</h1>
<p>{links}</p>
<h2>Scores</h2>
{scores}
<p>Means over the validation pairs, which were not trained on. The condition itself is what
doing nothing scores: the uncoloured sketch against the real picture.</p>
<h2>Curves</h2>
<a href="losses.png"><img src="losses.png" alt="Losses by step, scores by epoch"></a>
<h2>Validation pairs, the worst first</h2>
<p>Condition | generated | real, each with the L1 of the generated picture.</p>
<div class="pairs">
{pairs}
</div>
<h2>What was run</h2>
{options}
</html>
"""


def write_page(run, model, paths, direction, *, size=common.IMAGE_SIZE, labels=False):
    """Writes validation/ (conditions, generated and real pictures as PNG) and index.html.

    Args:
        paths: the validation pairs' files.
        size: (height, width) in training.
        labels: whether the conditions are label maps.
    """
    files = {Path(path).stem: path for path in paths}
    if len(files) < len(paths):  # a.png and a.jpg
        files = {Path(path).name: path for path in paths}
    form = {"size": size, "labels": labels}
    for folder in ("condition", "generated", "real"):
        (run / "validation" / folder).mkdir(parents=True, exist_ok=True)
    colour = tf.function(lambda condition: generate(model.generator, condition))
    rows = []
    for name, (condition, real) in zip(files, validation_pairs(paths, direction, **form)):
        pictures = {"condition": condition, "generated": colour(condition), "real": real}
        for folder, picture in pictures.items():
            common.write_picture(run / "validation" / folder / f"{name}.png", picture)
        rows.append((float(scores(pictures["generated"], real)["l1"]), name))

    def figure(l1, name):
        file = urllib.parse.quote(f"{name}.png")
        sides = f'height="{size[0]}" width="{size[1]}"'
        images = [
            f'<img src="validation/{folder}/{file}" alt="{folder}" {sides} loading="lazy">'
            for folder in ("condition", "generated", "real")
        ]
        return f"<figure>{''.join(images)}<figcaption>{html.escape(name)}: L1 {l1:.4f}</figcaption></figure>"

    options, metrics = common.read_run(run)
    names = [name.removeprefix("val_") for name in metrics[-1] if name.startswith("val_")]
    score_rows = [["epoch", *(name.upper() for name in names)]]
    score_rows += [
        [f"{row['epoch']:.0f}", *(f"{row[f'val_{name}']:.4f}" for name in names)] for row in metrics
    ]
    score_rows += [["the condition itself", *(f"{metrics[-1][f'condition_{name}']:.4f}" for name in names)]]
    others = ["01_gan_mnist/result.png", "02_cgan_mnist/result.png"]
    others += ["03_pix2pix_data/pairs.png", "04_pix2pix_models/skips.png"]
    links = [f'<a href="../{other}">{other}</a>' for other in others if (run.parent / other).exists()]
    facts = [[name, value] for part in ("flags", "data", "versions") for name, value in options[part].items()]
    page = PAGE.format(
        title=html.escape(f"Pix2Pix: {run.resolve().name}, epoch {metrics[-1]['epoch']:.0f}"),
        links="Other stages: " + ", ".join(links) if links else "",
        scores=html_table(score_rows),
        pairs="\n".join(figure(*row) for row in sorted(rows, reverse=True)),
        options=html_table([["", ""], *facts]),
    )
    with common.replacing(run / "index.html") as path:
        path.write_text(page, encoding="utf-8")


def html_table(rows):
    """Returns rows of texts as an HTML table, the first of them as its head."""
    cells = [[html.escape(str(cell)) for cell in row] for row in rows]
    lines = ["<tr><th>" + "<th>".join(cells[0])] + ["<tr><td>" + "<td>".join(row) for row in cells[1:]]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


# === Runs compared ==========================================================


def compare(runs, out):
    """Draws the same validation pairs by several runs, each column titled with its loss and scores.

    Raises:
        UserError: a run is not finished, or was trained on other data, or at another size, than the first.
    """
    read = [common.read_run(run) for run in runs]
    first, _ = read[0]
    data = {name: first["data"].get(name) for name in ("contents of the data", "train", "val")}
    direction, kind = first["flags"]["--direction"], first["data"].get("condition", {}).get("kind")
    size = first["flags"]["--size"]
    form = {"size": common.image_size(size), "labels": kind == "labels"}
    others = ["--filters", "--norm", "--augment", "--lambda-l1"]  # told where they differ
    values = {name: {str(options["flags"].get(name)) for options, _ in read} for name in others}
    generators, titles = [], []
    for run, (options, metrics) in zip(runs, read):
        flags, done = options["flags"], metrics[-1]["epoch"] if metrics else 0
        if done < flags["--epochs"]:
            raise common.UserError(
                f"--compare {run}: has {done:.0f} of {flags['--epochs']} epochs; finish it"
            )
        same = {name: options["data"].get(name) for name in ("contents of the data", "train", "val")}
        if (same, flags["--direction"]) != (data, direction):
            raise common.UserError(f"--compare {run}: was trained on other data than {runs[0]}")
        if flags["--size"] != size:
            raise common.UserError(
                f"--compare {run}: was trained at --size {flags['--size']}, and {runs[0]} at {size}"
            )
        last = metrics[-1]
        differing = [f"{name[2:]} {flags.get(name)}" for name in others if len(values[name]) > 1]
        name = ", ".join([flags["--loss"], *differing])
        numbers = f"L1 {last['val_l1']:.3f}, PSNR {last['val_psnr']:.1f}", f"SSIM {last['val_ssim']:.3f}"
        titles.append("\n".join([name, *numbers]))
        generators.append(common.load_generator(run)[0])
    paths = common.spread(common.find_pairs(first["flags"]["--dataset"])["val"], RESULT_ROWS)
    rows = [
        [condition[0], *(generate(generator, condition)[0] for generator in generators), real[0]]
        for condition, real in validation_pairs(paths, direction, **form)
    ]
    out.mkdir(parents=True, exist_ok=True)
    common.save_grid(out / "compare.png", rows, titles=["condition", *titles, "real"])
    print(out / "compare.png")


if __name__ == "__main__":
    common.run_main(main)
