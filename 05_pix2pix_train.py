"""Stage 5: train Pix2Pix, and validate it. You draw the sketch, it colours it.

A U-Net turns a sketch into a picture. A PatchGAN sees the sketch with either the real picture or
the generated one and learns to tell them apart. The U-Net learns two things at once: to come
close to the real picture (L1) and to pass for real (cGAN). Isola et al. 2017, "Image-to-Image
Translation with Conditional Adversarial Networks", sections 3 and 6.2.

    python 05_pix2pix_train.py --epochs 10
    python 05_pix2pix_train.py --dataset my/folder --direction BtoA --out runs/mine
    python 05_pix2pix_train.py --dataset my/folder --size 256x512 --filters 32 --out runs/mine
    python 05_pix2pix_train.py --dataset my/folder --start-from runs/05_pix2pix --out runs/mine

Writes under runs/05_pix2pix: result.png (sketch | generated | real, pairs never trained on),
losses.csv, losses.png, metrics.csv (validation L1, PSNR, SSIM), samples/ after each epoch,
validation/ (all validation pictures), the weights of the last and of the best epoch, and 1.4 GB
of checkpoints in saved/ (2.1 GB while it writes one). If you run it again, it continues where it
stopped. Ten epochs of the 215 pairs take 15 to 25 minutes on 2 cores.
"""

import contextlib
import os
from collections import Counter, defaultdict
from pathlib import Path

import common
from common import AdversarialModel, PatchGAN, adversarial_loss, minimise

import tensorflow as tf

# For both networks (section 3.3). The paper also halves the discriminator's loss to slow it down;
# Adam divides a gradient by its average size, so half the loss makes the same steps.
LEARNING_RATE, BETA_1 = 2e-4, 0.5
LAMBDA_L1 = 100.0
RESULT_ROWS = 6
SAMPLE_ROWS = 4
MOST_VALIDATION = 100  # at most this many pairs are scored after each epoch, evenly spaced


class Pix2Pix(AdversarialModel):
    """The generator and the PatchGAN, and the game between them.

    Args:
        loss: "l1+cgan" (the paper's), or "cgan" or "l1" alone.
        lambda_l1: the weight of L1 beside the adversarial loss, whose weight is 1.
        generator: "unet" (the paper's), or "encoder-decoder", the same network without skips.
        filters: channels of the first layer of both networks.
        norm: "batch" (the paper's), or "instance": each picture on its own.
    """

    def __init__(
        self, loss="l1+cgan", lambda_l1=LAMBDA_L1, generator="unet", filters=common.FILTERS,
        norm="batch", **kwargs,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.terms = loss.split("+")
        self.lambda_l1 = lambda_l1
        self.generator = common.GENERATORS[generator](filters, norm, name="generator")
        self.discriminator = PatchGAN(filters, norm, name="discriminator")
        picture = tf.zeros((1, *common.IMAGE_SIZE, 3))  # the weights fit every size
        self.generator(picture, training=False)  # the first call creates the weights
        self.discriminator(picture, picture, training=False)

    def train_step(self, pair):
        condition, real = pair  # (B, 256, 256, 3) each, by default
        losses = {}
        with tf.GradientTape() as g_tape, tf.GradientTape() as d_tape:
            # Generator: minimise lambda |x - G(c)| - log D(c, G(c)).
            # Discriminator: minimise -log D(c, x) - log(1 - D(c, G(c))).
            fake = self.generator(condition, training=True)
            g_loss = 0.0
            losses["g_l1"] = tf.reduce_mean(tf.abs(real - fake))
            if "l1" in self.terms:
                g_loss += self.lambda_l1 * losses["g_l1"]
            if "cgan" in self.terms:
                real_logits = self.discriminator(condition, real, training=True)  # (B, 30, 30, 1)
                fake_logits = self.discriminator(condition, fake, training=True)
                losses["g_adversarial"] = adversarial_loss(fake_logits, real=True)
                losses["d_real"] = adversarial_loss(real_logits, real=True)
                losses["d_fake"] = adversarial_loss(fake_logits, real=False)
                g_loss += losses["g_adversarial"]
                d_loss = losses["d_real"] + losses["d_fake"]

        minimise(g_loss, g_tape, self.generator, self.generator_optimizer)
        if "cgan" in self.terms:
            minimise(d_loss, d_tape, self.discriminator, self.discriminator_optimizer)
        return losses

    def test_step(self, pair):
        condition, real = pair  # (1, 256, 256, 3) each
        return common.scores(common.generate(self.generator, condition), real)


def load_networks(model, run, args):
    """Reads the networks of an earlier run of stage 5, to start from; returns their names.

    From a run of L1 alone, it takes only the generator: the discriminator has learned nothing.
    The size may differ. Raises UserError if there is no such run, or its networks are damaged or
    of another architecture.
    """
    if run.resolve() == args.out.resolve():
        raise common.UserError(f"--start-from {run}: give the new run another --out")
    flags = common.read_options(run)["flags"]
    for name in ("filters", "norm", "generator"):
        if flags[f"--{name}"] != vars(args)[name]:
            cure = f"give --{name} {flags[f'--{name}']}"
            raise common.UserError(f"--start-from {run}: its networks differ; {cure}")
    names = ["generator", "discriminator"] if "cgan" in flags["--loss"] else ["generator"]
    for name in names:
        common.load_weights(getattr(model, name), run / f"{name}.weights.h5")
    return names


def parse_flags(argv):
    """Returns the parsed flags."""
    flags = f"{common.TRAINER} --dataset --direction --size --filters"
    parser = common.parser_of(__doc__, flags, out="runs/05_pix2pix", batch_size=1)
    add = parser.add_argument
    add("--loss", choices=["l1+cgan", "cgan", "l1"], default="l1+cgan", help="losses (l1+cgan)")
    help_text, weight = f"weight of L1; the cGAN has 1 ({LAMBDA_L1:g})", common.number(0, 1e6)
    add("--lambda-l1", type=weight, default=LAMBDA_L1, metavar="X", help=help_text)
    add("--augment", choices=[*common.AUGMENTATIONS], default="jitter", help="method (jitter)")
    add("--generator", choices=[*common.GENERATORS], default="unet", help="network type (unet)")
    add("--norm", choices=["batch", "instance"], default="batch", help="normalisation (batch)")
    add("--start-from", type=Path, metavar="RUN", help="begin with an earlier run's weights")
    args = parser.parse_args(argv)
    if args.loss == "cgan" and args.lambda_l1 != LAMBDA_L1:
        parser.error("--lambda-l1: has no effect with --loss cgan")
    return args


def describe_conditions(about):
    """Returns what options.json keeps of dataset.json: the known facts about the conditions."""
    side = "left" if about["direction"] == "AtoB" else "right"
    facts = {"kind": about.get("condition"), "range": about.get("ranges", {}).get(side)}
    facts |= {name: about.get(name) for name in ("colours", "classes", "exchanged")}
    return {name: fact for name, fact in facts.items() if fact is not None}


def guess_kind(paths, direction):
    """Returns "sketch" if most conditions are nearly colourless and mostly white, or "picture"."""
    sample, grounds = common.spread(paths, 20), Counter()
    for condition, _ in common.validation_pairs(sample, direction):
        gray = tf.reduce_mean(condition, axis=-1)
        colour = tf.reduce_max(condition, axis=-1) - tf.reduce_min(condition, axis=-1)
        for ground, part in {"white": gray > 0.6, "black": gray < -0.6}.items():
            mostly = float(tf.reduce_mean(tf.cast(part, tf.float32))) > 0.6
            grounds[ground] += mostly and float(tf.reduce_mean(colour)) < 0.1
    kind = "sketch" if grounds["white"] > len(sample) / 2 else "picture"
    if grounds["black"] > len(sample) / 2:
        common.warn("light lines on black? Then stage 6 needs --invert for drawings on white")
    print(f"dataset.json does not say what the conditions are; assuming {kind}.")
    return kind


def check_headers(dataset, paths):
    """Refuses pairs that training would misread, and warns of odd ones. Returns the halves' size.

    It reads headers only. The size, "WIDTHxHEIGHT", is that of most halves.
    """
    problems, odd, sizes = [], defaultdict(set), Counter()
    narrow = 0.0 if "origin" in common.describe_dataset(dataset) else 1.4  # from stage 7: pairs
    for path, header in zip(paths, common.in_threads(common.read_header, paths)):
        failed = isinstance(header, common.UnreadableError)
        (width, height), remark, problem = ((2, 1), "", header.problem) if failed else header
        sizes[f"{width // 2}x{height}"] += 1
        if len(os.fsencode(Path(path).name)) > 251:  # validation/ appends .png
            problem = problem or "the name is too long: rename it"
        if problem:
            problems.append(f"{path} ({problem})")
        if remark or width < narrow * height:
            odd[remark or "probably not pairs, but split in half anyway"].add(path)
    if problems:
        raise common.UserError(f"--dataset {dataset}: {common.listed(problems)}; {common.CURE}")
    for remark, found in odd.items():
        common.warn(f"{remark} ({len(found)} of {len(paths)}): {common.listed(sorted(found))}")
    return sizes.most_common(1)[0][0]


@contextlib.contextmanager
def naming_damaged(paths):
    """If the block fails on a picture, finds and names every picture that cannot be decoded."""
    try:
        yield
    except tf.errors.InvalidArgumentError:
        common.refuse_unusable(paths)
        raise


def main(argv=None):
    args = parse_flags(argv)
    common.set_devices(args)

    # Bookkeeping: which pairs, which networks to start from, which folder.
    about = common.describe_dataset(args.dataset, args.direction)
    args.direction, facts = about["direction"], describe_conditions(about)
    notes = defaultdict(set)
    pairs = common.find_pairs(args.dataset, notes)
    train, val = pairs["train"], pairs["val"]
    steps = common.epoch_steps(args, len(train))
    halves = check_headers(args.dataset, train + val)
    common.tell(notes, f"{len(train)} pairs to train on, {len(val)} to validate with")
    with common.filtering_logs(), naming_damaged(train + val):
        kind = facts["kind"] = facts.get("kind") or guess_kind(train, args.direction)
    side = "left" if args.direction == "AtoB" else "right"
    size = "{1}x{0}".format(*args.size)
    print(f"Conditions: {side} halves ({kind}), width x height mostly {halves}; trained at {size}.")
    data = {"train": len(train), "val": len(val), "condition": facts}
    form = {"size": args.size, "labels": kind == "labels"}

    # The game: generator and PatchGAN, an optimiser for each, and batches of augmented pairs.
    model = Pix2Pix(args.loss, args.lambda_l1, args.generator, args.filters, args.norm)
    if args.start_from and (args.fresh or not [*args.out.glob("saved/step_*")]):  # else it resumes
        load_networks(model, args.start_from, args)
    run = common.start_run(args, "pix2pix", data, train + val)
    model.generator_optimizer = common.adam(model.generator, LEARNING_RATE, BETA_1)
    model.discriminator_optimizer = common.adam(model.discriminator, LEARNING_RATE, BETA_1)

    def batches(**span):  # first_step, last_step
        how = {"batch_size": args.batch_size, "seed": args.seed, "augment": args.augment}
        return common.training_pairs(train, direction=args.direction, **how, **form, **span)

    def validation(count):
        return common.validation_pairs(common.spread(val, count), args.direction, **form)

    def draw(path, count=SAMPLE_ROWS):
        rows = [[c[0], common.generate(model.generator, c)[0], r[0]] for c, r in validation(count)]
        common.save_grid(path, rows, titles=[kind, "generated", "real"])

    if len(val) > MOST_VALIDATION:
        print(f"Each epoch is scored on {MOST_VALIDATION} of the {len(val)} validation pairs.")
    scored, score_pair = validation(MOST_VALIDATION), tf.function(model.test_step)
    with naming_damaged(train + val):
        # The baseline: the condition itself, scored as if it were the generated picture.
        baseline = common.mean_scores([common.scores(*pair) for pair in scored], "condition_")

        def score():
            return common.mean_scores([score_pair(pair) for pair in scored], "val_") | baseline

        hooks = {"draw": draw, "score": score}
        metrics = common.train(model, run, batches, args, steps_per_epoch=steps, **hooks)
        draw(run / "result.png", RESULT_ROWS)
        write_validation(run / "validation", model, val, validation(len(val)))
    print_results(run, metrics[-1], kind)


def write_validation(folder, model, paths, pairs):
    """Writes condition/, generated/ and real/: every validation picture as PNG."""
    colour = tf.function(lambda condition: common.generate(model.generator, condition))
    for path, (condition, real) in zip(paths, pairs):
        pictures = {"condition": condition, "generated": colour(condition), "real": real}
        for name, picture in pictures.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            common.to_image(picture).save(folder / name / f"{Path(path).name}.png")


def print_results(run, last, kind):
    """Prints the scores of the last epoch, a row of metrics.csv, and the files to look at."""
    condition = {"labels": "label map", "picture": "condition"}.get(kind, kind)
    print(f"Validation after epoch {last['epoch']:.0f} (and what the {condition} itself scores):")
    print(f"  L1 {last['val_l1']:.4f} ({last['condition_l1']:.4f})")
    print(f"  PSNR {last['val_psnr']:.2f} dB ({last['condition_psnr']:.2f})")
    print(f"  SSIM {last['val_ssim']:.4f} ({last['condition_ssim']:.4f})")
    print(
        f"{run / 'result.png'}  {kind} | generated | real, pairs never trained on\n"
        f"{run / 'losses.png'}  from losses.csv and metrics.csv\n"
        f"{run / 'samples'}  some of the same pairs after each epoch\n"
        f"{run / 'validation'}  all validation pictures\n"
        f"{run / 'generator.weights.h5'}  the last epoch; best.weights.h5: the lowest L1\n"
        f"Look at result.png: which colours follow from the {condition}, and which are guesses?\n"
        f'Next: python 09_results.py "{run}", one page of results; or python 06_sketch_pad.py '
        f'--run "{run}", to draw'
    )


if __name__ == "__main__":
    common.run_main(main)
