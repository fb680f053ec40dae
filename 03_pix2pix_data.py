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

They are augmented as one stack so that both halves move together. 286, the crop and the
mirroring are in appendix 6.2 of Isola et al. 2017, which also lists the datasets of the
paper; section 3 says what condition and target are to the two networks. To validate and
to test, the stack is resized to (256, 256, 6) and nothing else. --size makes that another
size, as it does in stage 5, and the 286 grow with it.

    python 03_pix2pix_data.py
    python 03_pix2pix_data.py --dataset my/folder --direction BtoA
    python 03_pix2pix_data.py --dataset my/folder --size 256x512

Prints a table of both splits, names the files that cannot be read, and writes, under
runs/03_pix2pix_data: pairs.png, augmentation.png, histograms.png. Takes about 10 seconds
for the embedded pairs. Stage 7 gets other ones: python 07_get_pairs.py --help
"""

import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import common
from common import AUGMENTATIONS, decode_pair, read_stack, resize, split_stack, stack_pair

import tensorflow as tf
from matplotlib.figure import Figure

BINS = 64  # bins of a histogram
PAIRS_SHOWN = 5  # rows of pairs.png
DRAWS_SHOWN = 4  # columns of augmentation.png
MOVED_FLAGS = ["--download", "--pair", "--edges", "--import-cityscapes", "--url", "--val-share"]


# === Measuring ==============================================================


class Measures(NamedTuple):
    """What `measure` finds out about the pairs of one split, resized to --size, in [-1, 1].

    The six channels are R, G and B of the condition, then R, G and B of the target.
    """

    sizes: Counter  # how many pairs have halves of which "width x height", before they are resized
    mean: tf.Tensor  # (6,), the mean of each channel over all pixels
    spread: tf.Tensor  # (6,), the standard deviation of each channel over all pixels
    counts: tf.Tensor  # (6, BINS), how many pixels of each channel have each value
    ink: list  # for each pair, the fraction of the condition that is darker than middle gray
    colours: tf.Tensor  # (2,), how many colours a condition has, and a target; means over the pairs


def measure(paths, direction, *, size=common.IMAGE_SIZE, labels=False):
    """Returns the `Measures` of the pairs of one split.

    Args:
        paths: files of side-by-side pictures, all readable.
        direction: "AtoB" or "BtoA", as for `stack_pair`.
        size: (height, width) to resize to.
        labels: whether the conditions are label maps, as for `resize`.
    """

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
        histograms = [tf.histogram_fixed_width(channel, (-1.0, 1.0), BINS) for channel in channels]
        counts += tf.cast(tf.stack(histograms), tf.float32)
        condition, target = split_stack(stack)
        colours += [count_colours(condition), count_colours(target)]
        dark = tf.reduce_mean(condition, axis=-1) < 0.0  # (height, width)
        ink.append(float(tf.reduce_mean(tf.cast(dark, tf.float32))))
    mean = total / len(paths)
    spread = tf.sqrt(tf.maximum(squares / len(paths) - mean**2, 0.0))
    return Measures(sizes, mean, spread, counts, ink, colours / len(paths))


def count_colours(picture):
    """Returns the number of colours in a picture, (height, width, 3) in [-1, 1], at 16 levels a channel."""
    levels = tf.cast(tf.minimum((picture + 1.0) * 8.0, 15.0), tf.int32)
    numbers = tf.reduce_sum(levels * tf.constant([256, 16, 1]), axis=-1)  # one for each colour
    return float(len(tf.unique(tf.reshape(numbers, [-1])).y))


def print_table(measured, unreadable, direction, labels=False):
    """Prints the measures of each split, and a hint when the halves look exchanged.

    Args:
        measured: {split: its `Measures`}.
        unreadable: {split: number of files that cannot be used}.
        labels: whether the conditions are label maps, to which a JPEG file adds colours: no hint.
    """
    print(f"{'split':6}{'pairs':>7}{'unreadable':>12}  size of a half (pairs)")
    for split, measures in measured.items():
        sizes = measures.sizes
        most_common = ", ".join(f"{size} ({count})" for size, count in sizes.most_common(4))
        more = f", and {len(sizes) - 4} more sizes" if len(sizes) > 4 else ""
        print(f"{split:6}{sizes.total():7}{unreadable[split]:12}  {most_common}{more}")
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
            f"\nThe condition has {condition:.0f} colours and the target {target:.0f}: if you want to go "
            f"from the plain picture to the rich one, it is --direction {other}"
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
        row[0].set_xlabel(f"{Path(file).parent.name}/{Path(file).name}", fontsize=8, parse_math=False)
        row[1].imshow(tf.clip_by_value(condition * 0.5 + 0.5, 0.0, 1.0))
        row[2].imshow(tf.clip_by_value(target * 0.5 + 0.5, 0.0, 1.0))
        for axis in row:
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(axes[0], ["the file, split at the middle", "condition", "target"]):
        axis.set_title(title, fontsize=11)
    common.save_figure(figure, path)


def draw_augmentations(path, file, direction, seed, *, size=common.IMAGE_SIZE, labels=False):
    """Draws one pair under each augmentation, several times: a row for each, condition and target."""
    stack = read_stack(file, direction)
    line = tf.zeros((size[0], size[1] // 40, 3))  # gray, for a crop may end in the midst of a shape
    rows = []
    for augment in AUGMENTATIONS.values():
        seeds = [tf.constant([seed, draw], tf.int64) for draw in range(DRAWS_SHOWN)]
        draws = [augment(stack, seed, size, labels) for seed in seeds]
        halves = [split_stack(draw) for draw in draws]
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


def refuse_moved_flags(arguments):
    """Raises UserError with the new command if there is a flag that stage 7 has now."""
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag in MOVED_FLAGS:
            raise common.UserError(f"{flag} has moved: python 07_get_pairs.py {shlex.join(arguments)}")


def main():
    refuse_moved_flags(sys.argv[1:])
    parser = common.Parser(__doc__)
    common.pair_arguments(parser)
    folder = Path("runs/03_pix2pix_data")
    help_text = f"folder of the figures ({folder})"
    parser.first.add_argument("--out", type=common.file_path, default=folder, metavar="DIR", help=help_text)
    seeds = common.number(0, 2**31 - 1, int)
    parser.others.add_argument("--seed", type=seeds, default=0, help="seed of the random draws (0)")
    args = parser.parse_args()

    direction = args.direction or common.usual_direction(args.dataset)
    pairs = common.find_pairs(args.dataset)
    problems, checks = common.check_pictures(pairs["train"] + pairs["val"])
    readable = {split: [path for path in paths if path in checks] for split, paths in pairs.items()}
    for split, paths in readable.items():
        if not paths:
            raise common.UserError(f"--dataset {args.dataset}: no readable picture in {split}")
    args.out.mkdir(parents=True, exist_ok=True)

    condition, target = ("left", "right") if direction == "AtoB" else ("right", "left")
    dataset = common.printable(args.dataset)
    print(f"{dataset}, {direction}: condition = {condition} half, target = {target} half")
    kind = common.condition_kind(args.dataset, readable["train"], direction)
    labels = kind == "labels"
    how = "resized without mixing colours" if labels else "resized like the targets"
    print(f"Conditions: {kind}, {how}\n")
    form = {"size": args.size, "labels": labels}
    measured = {split: measure(paths, direction, **form) for split, paths in readable.items()}
    unreadable = {split: len(pairs[split]) - len(readable[split]) for split in pairs}
    print_table(measured, unreadable, direction, labels)
    common.warn_of_shared(readable, {path: check[-1] for path, check in checks.items()})

    draw_pairs(args.out / "pairs.png", readable["train"], direction, **form)
    draw_augmentations(args.out / "augmentation.png", readable["train"][0], direction, args.seed, **form)
    draw_histograms(args.out / "histograms.png", measured["train"])
    print(
        f"\n{args.out / 'pairs.png'}         some files, and the two halves of each\n"
        f"{args.out / 'augmentation.png'}  one pair under each --augment of stage 5\n"
        f"{args.out / 'histograms.png'}    values of both halves, and ink (training pairs)"
    )
    common.refuse_unreadable(f"--dataset {args.dataset}", problems)
    print(
        "Look at augmentation.png: do both halves move together, and is each draw a likely picture?\n"
        "Next: python 04_pix2pix_models.py, or python 05_pix2pix_train.py with the same --dataset"
    )


if __name__ == "__main__":
    common.run_main(main)
