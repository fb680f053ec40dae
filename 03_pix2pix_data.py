"""Stage 3: look at paired data before training on it.

A pair is one picture file: the condition (a sketch, a segmentation map) in one half,
the target (the coloured picture, the photograph) in the other. Split in the middle and
scaled to [-1, 1], a pair is augmented as one stack, so that both halves move together
(Isola et al. 2017, sections 5 and 6.2). What is wrong here, no training mends.

    python 03_pix2pix_data.py
    python 03_pix2pix_data.py --dataset my/folder --direction BtoA

Prints a table and writes, under runs/03_pix2pix_data: pairs.png, augmentation.png,
histograms.png. Takes about 10 seconds for the embedded pairs.
"""

import argparse
from collections import Counter
from pathlib import Path

from common import (
    AUGMENTATIONS,
    UserError,
    decode_pair,
    find_pairs,
    number,
    pair_arguments,
    refuse_unreadable,
    run_main,
    save_figure,
    save_grid,
    split_stack,
    stack_pair,
    unreadable,
    warn_of_shared,
)

import tensorflow as tf
from matplotlib.figure import Figure

BINS = 64
SHOWN_PAIRS = 5
SHOWN_DRAWS = 4
COLOURS = ["tab:red", "tab:green", "tab:blue"]


def measure(paths, direction):
    """Measures the pairs of one split.

    Returns:
        sizes: Counter of "width x height" of a half, before it is resized to 256x256.
        mean, spread: two lists of 6 numbers in [-1, 1]: the condition's R, G, B, the
            target's R, G, B; mean and standard deviation over all pixels.
        counts: (6, BINS) how many pixels of each channel have each value.
        ink: for each pair, the share of the condition that is darker than middle gray.
    """

    def read(path):
        left, right = decode_pair(path)
        return tf.shape(left), stack_pair(left, right, direction)

    sizes, ink, stacks = Counter(), [], 0
    total, squares, counts = tf.zeros(6), tf.zeros(6), tf.zeros((6, BINS))
    files = tf.data.Dataset.from_tensor_slices(paths)
    for size, stack in files.map(read, num_parallel_calls=tf.data.AUTOTUNE):
        sizes[f"{int(size[1])}x{int(size[0])}"] += 1
        stacks += 1
        total += tf.reduce_mean(stack, axis=(0, 1))
        squares += tf.reduce_mean(stack**2, axis=(0, 1))
        channels = tf.unstack(stack, axis=-1)
        histograms = [tf.histogram_fixed_width(c, (-1.0, 1.0), BINS) for c in channels]
        counts += tf.cast(tf.stack(histograms), tf.float32)
        condition, _ = split_stack(stack)
        ink.append(float(tf.reduce_mean(tf.cast(tf.reduce_mean(condition, axis=-1) < 0.0, tf.float32))))
    mean = total / stacks
    spread = tf.sqrt(tf.maximum(squares / stacks - mean**2, 0.0))
    return sizes, [float(m) for m in mean], [float(s) for s in spread], counts, ink


def print_table(measured, bad):
    print(f"{'split':6}{'pairs':>7}{'unreadable':>12}  size of a half (pairs)")
    for split, (sizes, *_) in measured.items():
        common_sizes = ", ".join(f"{size} ({n})" for size, n in sizes.most_common(4))
        more = f", and {len(sizes) - 4} more sizes" if len(sizes) > 4 else ""
        print(f"{split:6}{sizes.total():7}{len(bad[split]):12}  {common_sizes}{more}")
    print(f"\n{'in [-1, 1]':17}{'mean R':>8}{'G':>8}{'B':>8}{'spread R':>11}{'G':>8}{'B':>8}{'ink':>8}")
    for split, (_, mean, spread, _, ink) in measured.items():
        for half, c in (("condition", slice(0, 3)), ("target", slice(3, 6))):
            means = "".join(f"{m:8.3f}" for m in mean[c])
            spreads = "".join(f"{s:8.3f}" for s in spread[c])
            share = f"{sum(ink) / len(ink):8.1%}" if half == "condition" else ""
            print(f"{split:7}{half:10}{means}   {spreads}{share}")


def draw_pairs(path, files, direction):
    """Draws some files as they are stored, and the two halves that they give."""
    rows = files[:: max(1, len(files) // SHOWN_PAIRS)][:SHOWN_PAIRS]
    figure = Figure((7.2, 1.75 * len(rows) + 0.3), layout="constrained")
    axes = figure.subplots(len(rows), 3, squeeze=False, width_ratios=[2, 1, 1])
    for row, file in zip(axes, rows):
        left, right = decode_pair(tf.constant(file))
        stored = tf.concat([left, right], axis=1)
        condition, target = split_stack(stack_pair(left, right, direction))
        row[0].imshow(stored)
        row[0].axvline(left.shape[1] - 0.5, color="tab:red", linestyle="--")
        row[0].set_xlabel(f"{Path(file).parent.name}/{Path(file).name}", fontsize=8, parse_math=False)
        row[1].imshow(condition * 0.5 + 0.5)
        row[2].imshow(target * 0.5 + 0.5)
        for axis in row:
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(axes[0], ["the file, split at the middle", "condition", "target"]):
        axis.set_title(title, fontsize=11)
    save_figure(figure, path)


def draw_augmentations(path, file, direction, seed):
    """Draws one pair under each augmentation, several times."""
    stack = stack_pair(*decode_pair(tf.constant(file)), direction)
    rows = [
        [
            tf.concat(split_stack(augment(stack, tf.constant([seed, draw], tf.int64))), axis=1)
            for draw in range(SHOWN_DRAWS)
        ]
        for augment in AUGMENTATIONS.values()
    ]
    titles = [f"draw {draw + 1}" for draw in range(SHOWN_DRAWS)]
    save_grid(path, rows, titles=titles, row_titles=list(AUGMENTATIONS), scale=0.6)


def draw_histograms(path, counts, ink):
    """Draws which values the channels of each half have, and how much ink the conditions."""
    figure = Figure((13, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    edges = [-1 + 2 * n / BINS for n in range(BINS + 1)]
    for axis, half, title in zip(axes, (counts[:3], counts[3:]), ("condition", "target")):
        for channel, colour, name in zip(half, COLOURS, "RGB"):
            axis.stairs(channel / tf.reduce_sum(channel), edges, color=colour, label=name)
        axis.set(title=f"values of the {title}", xlabel="value in [-1, 1]", yscale="log")
        axis.set_ylabel("share of pixels")
        axis.legend()
    axes[2].hist([100 * share for share in ink], bins=30, color="0.3")
    axes[2].set(title="ink", xlabel="% of the condition darker than middle gray", ylabel="pairs")
    save_figure(figure, path)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pair_arguments(parser)
    parser.add_argument("--seed", type=number(0, 2**31 - 1, int), default=0, help="(0)")
    out = Path("runs/03_pix2pix_data")
    parser.add_argument("--out", type=Path, default=out, metavar="DIR", help=f"({out})")
    args = parser.parse_args()

    pairs = find_pairs(args.dataset)
    bad = {split: unreadable(paths) for split, paths in pairs.items()}
    good = {split: [p for p in paths if p not in bad[split]] for split, paths in pairs.items()}
    for split, paths in good.items():
        if not paths:
            raise UserError(f"--dataset {args.dataset}: no readable picture in {split}")
    args.out.mkdir(parents=True, exist_ok=True)

    sides = ("left", "right") if args.direction == "AtoB" else ("right", "left")
    print(f"{args.dataset}, {args.direction}: condition = {sides[0]} half, target = {sides[1]} half\n")
    measured = {split: measure(paths, args.direction) for split, paths in good.items()}
    print_table(measured, bad)
    warn_of_shared(good)

    draw_pairs(args.out / "pairs.png", good["train"], args.direction)
    draw_augmentations(args.out / "augmentation.png", good["train"][0], args.direction, args.seed)
    draw_histograms(args.out / "histograms.png", *measured["train"][3:])
    print(
        f"\n{args.out / 'pairs.png'}         some files and the halves they give\n"
        f"{args.out / 'augmentation.png'}  one pair under each --augment of stage 5\n"
        f"{args.out / 'histograms.png'}    values of both halves, ink (training pairs)"
    )
    refuse_unreadable(args.dataset, bad["train"] | bad["val"])


if __name__ == "__main__":
    run_main(main)
