"""Stage 3: look at paired data before training on them.

A pair is one picture file: one half of it is the condition (a sketch, a label map), the
other is the target (the coloured picture, the photograph). A pair travels like this from
its file to the networks, with the paper's augmentation, which stage 5 calls `jitter`:

    the file, decoded                      (H, 2W, 3)       0 to 255
    split at the middle: left and right    (H, W, 3) twice
    scaled, and put into one stack         (H, W, 6)        -1 to 1, condition first
    resized                                (286, 286, 6)
    cropped at random                      (256, 256, 6)
    mirrored, half of the time             (256, 256, 6)
    split: condition and target            (256, 256, 3) twice

The stack is augmented as a whole, so that both halves move together. 286, the crop and the
mirroring are in appendix 6.2 of Isola et al. 2017, which also lists the datasets of the
paper; section 3 says what condition and target are to the two networks. To validate and
to test, the stack is resized to (256, 256, 6) and nothing else. --size makes that another
size, as it does in stage 5, and the 286 grow with it.

    python 03_pix2pix_data.py
    python 03_pix2pix_data.py --dataset my/folder --direction BtoA
    python 03_pix2pix_data.py --dataset my/folder --size 256x512

Decodes every picture, prints a table of the splits, names what cannot be used, and writes,
under runs/03_pix2pix_data: pairs.png, augmentation.png, histograms.png. Takes about 10
seconds for the embedded pairs. Stage 7 gets other ones: python 07_get_pairs.py --help
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import common
from common import AUGMENTATIONS, decode_pair, read_stack, resize, split_stack, stack_pair

import tensorflow as tf
from matplotlib.figure import Figure

BINS = 64  # of a histogram
PAIRS_SHOWN = 5  # rows of pairs.png
DRAWS_SHOWN = 4  # columns of augmentation.png
NEAR = 0.02  # root mean square distance, in shares of white, of pictures that are nearly equal


# === Measuring ==============================================================


class Measures(NamedTuple):
    """What `measure` finds out about the pairs of one split, resized to --size, in [-1, 1].

    The six channels are R, G and B of the condition, then R, G and B of the target.
    """

    sizes: Counter  # how many pairs have halves of which "width x height", before the resizing
    mean: tf.Tensor  # (6,), the mean of each channel over all pixels
    spread: tf.Tensor  # (6,), the standard deviation of each channel over all pixels
    counts: tf.Tensor  # (6, BINS), how many pixels of each channel have each value
    ink: list  # for each pair, the fraction of the condition that is darker than middle gray
    colours: tf.Tensor  # (2,), mean number of colours of a condition, and of a target


def measure(paths, direction, *, size=common.IMAGE_SIZE, labels=False):
    """Returns the `Measures` of side-by-side pictures; `size` and `labels` as for `resize`."""

    def read(path):
        stack = read_stack(path, direction)
        return tf.shape(stack), resize(stack, size, labels)

    sizes, ink, colours = Counter(), [], tf.zeros(2)
    total, squares, counts = tf.zeros(6), tf.zeros(6), tf.zeros((6, BINS))
    files = tf.data.Dataset.from_tensor_slices(paths)
    for shape, stack in files.map(read, num_parallel_calls=tf.data.AUTOTUNE):
        height, width, _ = (int(length) for length in shape)
        sizes[f"{width}x{height}"] += 1
        total += tf.reduce_mean(stack, axis=(0, 1))
        squares += tf.reduce_mean(stack**2, axis=(0, 1))
        channels = tf.unstack(stack, axis=-1)
        histograms = [tf.histogram_fixed_width(values, (-1.0, 1.0), BINS) for values in channels]
        counts += tf.cast(tf.stack(histograms), tf.float32)
        condition, target = split_stack(stack)
        colours += [count_colours(condition), count_colours(target)]
        dark = tf.reduce_mean(condition, axis=-1) < 0.0  # (height, width)
        ink.append(float(tf.reduce_mean(tf.cast(dark, tf.float32))))
    mean = total / len(paths)
    spread = tf.sqrt(tf.maximum(squares / len(paths) - mean**2, 0.0))
    return Measures(sizes, mean, spread, counts, ink, colours / len(paths))


def count_colours(picture):
    """Returns the number of colours of (height, width, 3) in [-1, 1], at 16 levels a channel."""
    levels = tf.cast(tf.minimum((picture + 1.0) * 8.0, 15.0), tf.int32)
    numbers = tf.reduce_sum(levels * tf.constant([256, 16, 1]), axis=-1)  # one for each colour
    return float(len(tf.unique(tf.reshape(numbers, [-1])).y))


def print_table(measured, unreadable, direction, labels=False):
    """Prints {split: Measures} and {split: unreadable files}; hints when halves look exchanged."""
    print(f"{'split':6}{'pairs':>7}{'unreadable':>12}  size of a half (pairs)")
    for split, measures in measured.items():
        sizes = measures.sizes
        shown = ", ".join(f"{size} ({count})" for size, count in sizes.most_common(4))
        more = f", and {len(sizes) - 4} more sizes" if len(sizes) > 4 else ""
        print(f"{split:6}{sizes.total():7}{unreadable[split]:12}  {shown}{more}")
    heads = f"{'mean R':>8}{'G':>8}{'B':>8}{'spread R':>11}{'G':>8}{'B':>8}{'colours':>9}{'ink':>8}"
    print(f"\n{'in [-1, 1]':17}{heads}")
    for split, measures in measured.items():
        halves = (("condition", slice(0, 3)), ("target", slice(3, 6)))
        for (half, channels), colours in zip(halves, measures.colours):
            means = "".join(f"{value:8.3f}" for value in measures.mean[channels])
            spreads = "".join(f"{value:8.3f}" for value in measures.spread[channels])
            ink = f"{sum(measures.ink) / len(measures.ink):8.1%}" if half == "condition" else ""
            print(f"{split:7}{half:10}{means}   {spreads}{colours:9.0f}{ink}")
    condition, target = measured["train"].colours
    if condition > 2 * target and not labels:
        other = "BtoA" if direction == "AtoB" else "AtoB"
        print(
            f"\nThe condition has {condition:.0f} colours and the target {target:.0f}: to go from "
            f"the plain picture to the rich one, give --direction {other}"
        )


# === Checking ===============================================================


def read_small(path):
    """Returns a pair as (32, 64) in [0, 1], gray and small, or what is wrong with its file."""
    try:
        _, _, problem = common.read_header(path)
        if problem:
            return problem
        pair = tf.cast(tf.concat(decode_pair(path), axis=1), tf.float32) / 255.0
        return tf.image.rgb_to_grayscale(tf.image.resize(pair, (32, 64), antialias=True))[..., 0]
    except common.UnreadableError as error:
        return error.problem
    except tf.errors.InvalidArgumentError:
        return "damaged"


def warn_of_copies(pairs, small):
    """Warns when validation pairs nearly equal training pairs, {split: paths}: scores flatter.

    `small` has what `read_small` returns of each path.
    """
    train = tf.stack([small[path] for path in pairs["train"]])
    some, near = common.spread(pairs["val"], 100), []
    for path in some:
        distances = tf.reduce_mean((train - small[path]) ** 2, axis=(1, 2))
        if tf.reduce_min(distances) < NEAR**2:
            near.append(f"{path} and {pairs['train'][int(tf.argmin(distances))]}")
    if near:
        common.warn(
            f"{len(near)} of {len(some)} validation pairs nearly equal a training pair, e.g. "
            f"{near[0]}: keep the frames of a clip in one split, or the scores flatter"
        )


def warn_of_strangers(small):
    """Warns when the halves of files (by `read_small`) are no more alike than those of others."""
    halves = tf.concat(tf.split(tf.stack(small), 2, axis=2), axis=0)[..., tf.newaxis]
    edges = tf.norm(tf.image.sobel_edges(halves), axis=-1)  # (2N, 32, 32, 1)
    edges -= tf.reduce_mean(edges, axis=(1, 2), keepdims=True)
    left, right = tf.split(tf.math.l2_normalize(tf.reshape(edges, (2 * len(small), -1)), 1), 2)
    alike = tf.matmul(left, right, transpose_b=True)  # (N, N), the diagonal is that of the pairs
    less = tf.cast(alike < tf.linalg.diag_part(alike)[:, tf.newaxis], tf.float32)
    if len(small) > 3 and tf.reduce_sum(less) < 0.7 * len(small) * (len(small) - 1):
        common.warn(
            "the halves of a file are hardly more alike than halves of different files: are these "
            "pairs, or single pictures, which are cut in half here?"
        )


# === Drawing ================================================================


def draw_pairs(path, files, direction, *, size=common.IMAGE_SIZE, labels=False):
    """Draws some files as they are stored, and beside each the condition and the target in it."""
    shown = files[:: max(1, len(files) // PAIRS_SHOWN)][:PAIRS_SHOWN]
    figure = Figure((7.2, 1.75 * len(shown) + 0.3), layout="constrained")
    axes = figure.subplots(len(shown), 3, squeeze=False, width_ratios=[2, 1, 1])
    for row, file in zip(axes, shown):
        left, right = decode_pair(file)
        condition, target = split_stack(resize(stack_pair(left, right, direction), size, labels))
        row[0].imshow(tf.concat([left, right], axis=1))
        row[0].axvline(left.shape[1] - 0.5, color="tab:red", linestyle="--")
        row[0].set_xlabel(
            f"{Path(file).parent.name}/{Path(file).name}", fontsize=8, parse_math=False
        )
        row[1].imshow(tf.clip_by_value(condition * 0.5 + 0.5, 0.0, 1.0))
        row[2].imshow(tf.clip_by_value(target * 0.5 + 0.5, 0.0, 1.0))
        for axis in row:
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(axes[0], ["the file, split at the middle", "condition", "target"]):
        axis.set_title(title, fontsize=11)
    common.save_figure(figure, path)


def draw_augmentations(path, file, direction, seed, *, size=common.IMAGE_SIZE, labels=False):
    """Draws one pair under each augmentation, several times: a row for each."""
    stack = read_stack(file, direction)
    line = tf.zeros((size[0], size[1] // 40, 3))  # gray, for a crop may end in the midst of a shape
    rows = []
    for augment in AUGMENTATIONS.values():
        seeds = [tf.constant([seed, draw], tf.int64) for draw in range(DRAWS_SHOWN)]
        halves = [split_stack(augment(stack, seed, size, labels)) for seed in seeds]
        rows.append([tf.concat([condition, line, target], axis=1) for condition, target in halves])
    titles = [f"draw {number}" for number in range(1, DRAWS_SHOWN + 1)]
    common.save_grid(path, rows, titles=titles, row_titles=list(AUGMENTATIONS), scale=0.6)


def draw_histograms(path, measures):
    """Draws which values the channels of both halves have, and how much ink the conditions have."""
    figure = Figure((13, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    edges = [-1 + 2 * n / BINS for n in range(BINS + 1)]
    halves = measures.counts[:3], measures.counts[3:]
    for axis, half, title in zip(axes, halves, ("condition", "target")):
        for channel, colour, name in zip(half, ("tab:red", "tab:green", "tab:blue"), "RGB"):
            axis.stairs(channel / tf.reduce_sum(channel), edges, color=colour, label=name)
        axis.set(title=f"values of the {title}", xlabel="value in [-1, 1]", yscale="log")
        axis.set_ylabel("fraction of pixels")
        axis.legend()
    axes[2].hist([100 * fraction for fraction in measures.ink], bins=30, color="0.3")
    axes[2].set(title="ink", xlabel="% of the condition darker than middle gray", ylabel="pairs")
    common.save_figure(figure, path)


# === Command line ===========================================================


def main(argv=None):
    parser, folder = common.parser_of(__doc__), Path("runs/03_pix2pix_data")
    common.pair_arguments(parser)
    help_text = f"folder of the figures ({folder})"
    parser.add_argument("--out", type=Path, default=folder, metavar="DIR", help=help_text)
    seeds = common.number(0, 2**31 - 1, int)
    parser.add_argument("--seed", type=seeds, default=0, help="seed of the random draws (0)")
    args = parser.parse_args(argv)

    about, left_out = common.describe_dataset(args.dataset), common.LeftOut()
    direction = args.direction or about["direction"]
    pairs = common.find_pairs(args.dataset, left_out)
    paths = sum(pairs.values(), [])
    small = dict(zip(paths, common.in_threads(read_small, paths)))
    bad, readable = {path for path in paths if isinstance(small[path], str)}, {}
    for split, paths in pairs.items():
        readable[split] = [path for path in paths if path not in bad]
        if not readable[split]:
            raise common.UserError(f"--dataset {args.dataset}: no readable picture in {split}")
    args.out.mkdir(parents=True, exist_ok=True)

    condition, target = ("left", "right") if direction == "AtoB" else ("right", "left")
    dataset = common.printable(args.dataset)
    print(f"{dataset}, {direction}: condition = {condition} half, target = {target} half")
    labels = about.get("condition") == "labels" and direction == about["direction"]
    print("Conditions: labels, resized without mixing colours\n" if labels else "")
    form = {"size": args.size, "labels": labels}
    measured = {split: measure(paths, direction, **form) for split, paths in readable.items()}
    unreadable = {split: len(pairs[split]) - len(readable[split]) for split in pairs}
    print_table(measured, unreadable, direction, labels)
    left_out.tell(f"{len(small)} pictures in the splits")
    warn_of_copies(readable, small)
    if not labels:
        warn_of_strangers([small[path] for path in common.spread(readable["train"], 20)])

    draw_pairs(args.out / "pairs.png", readable["train"], direction, **form)
    draw_augmentations(
        args.out / "augmentation.png", readable["train"][0], direction, args.seed, **form
    )
    draw_histograms(args.out / "histograms.png", measured["train"])
    print(
        f"\n{args.out / 'pairs.png'}         some files, and the two halves of each\n"
        f"{args.out / 'augmentation.png'}  one pair under each --augment of stage 5\n"
        f"{args.out / 'histograms.png'}    values of both halves, and ink (training pairs)"
    )
    if bad:
        found = common.listed([f"{path} ({small[path]})" for path in sorted(bad)])
        raise common.UserError(f"--dataset {args.dataset}: fix or remove {found}; {common.CURE}")
    print(
        "Look at augmentation.png: do both halves move together, and is each draw likely?\n"
        "Next: python 04_pix2pix_models.py, or python 05_pix2pix_train.py with the same --dataset"
    )


if __name__ == "__main__":
    common.run_main(main)
