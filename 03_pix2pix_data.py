"""Stage 3: look at paired data before you train on them.

A pair is one picture file: one half is the condition (a sketch, a label map), the other is the
target (the coloured picture, the photograph). These steps lead from a file to the networks, with
the paper's augmentation (stage 5 calls it `jitter`):

    the file, decoded                      (H, 2W, 3)       0 to 255
    split at the middle: left and right    (H, W, 3) twice
    scaled, and put into one stack         (H, W, 6)        -1 to 1, condition first
    resized                                (286, 286, 6)
    cropped at random                      (256, 256, 6)
    mirrored, half of the time             (256, 256, 6)
    split: condition and target            (256, 256, 3) twice

The whole stack is augmented, so both halves move together. Appendix 6.2 of Isola et al. 2017
describes the size 286, the crop, the mirroring and the datasets. Section 3 describes how the two
networks use condition and target. Validation and test only resize the stack, to (256, 256, 6).

    python 03_pix2pix_data.py
    python 03_pix2pix_data.py --dataset my/folder --direction BtoA --size 256x512

Decodes every picture, prints a table of the splits and names the files that it cannot use.
Writes pairs.png (files and their halves), augmentation.png (a pair with each --augment) and
histograms.png (values and ink of the training pairs) in runs/03_pix2pix_data. It takes 10 s.
"""

from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import common
from common import AUGMENTATIONS, decode_pair, read_stack, resize, split_stack

import tensorflow as tf
from matplotlib.figure import Figure

PAIRS_SHOWN = 5  # rows of pairs.png
DRAWS_SHOWN = 4  # columns of augmentation.png
NEAR = 5  # pictures with a smaller RMS distance (in shades of 255) count as nearly equal


# === Measuring ==============================================================
class Look(NamedTuple):
    """What `look` finds in a pair, resized to --size."""

    path: str  # of its file
    size: str  # "width x height" of a half, before the resizing
    shares: tf.Tensor  # (6, 256), share of each shade in R, G, B of the condition, of the target
    colours: list  # (2,), how many colours condition and target have, at 16 levels a channel
    ink: float  # the fraction of the condition that is darker than middle gray
    equal: bool  # whether condition and target are the same picture
    small: tf.Tensor  # (2, 32, 32, 1) uint8: condition and target, small and gray


def look(path, direction, *, size=common.IMAGE_SIZE, labels=False):
    """Returns the `Look` of a pair, or what is wrong with its file; `labels` as for `resize`."""
    try:
        if problem := common.read_header(path)[2]:
            return problem
        stack = read_stack(path, direction)
    except (common.UnreadableError, tf.errors.InvalidArgumentError) as error:
        return getattr(error, "problem", "damaged")
    height, width, _ = stack.shape
    stack = (resize(stack, size, labels) + 1.0) * 127.5
    shades = tf.cast(tf.transpose(tf.reshape(tf.round(stack), (-1, 6))), tf.int32)  # (6, pixels)
    counts = tf.math.bincount(shades, minlength=256, axis=-1, dtype=tf.float32)
    red, green, blue = (shades[channel::3] // 16 for channel in range(3))  # (2, pixels)
    colours = [float(len(tf.unique(half).y)) for half in red * 256 + green * 16 + blue]
    dark = tf.reduce_mean(stack[..., :3], axis=-1) < 127.5
    ink = float(tf.reduce_mean(tf.cast(dark, tf.float32)))
    halves = tf.stack(split_stack(tf.image.resize(stack, (32, 32), antialias=True)))
    small = tf.cast(tf.image.rgb_to_grayscale(halves), tf.uint8)
    equal = float(tf.reduce_mean(tf.abs(stack[..., :3] - stack[..., 3:]))) < 1.5  # JPEG adds noise
    return Look(path, f"{width}x{height}", counts / shades.shape[1], colours, ink, equal, small)


def print_table(looks, bad, labels=False, known=False):
    """Prints tables of {split: Looks} and {split: unreadable files}; hints at swapped halves."""
    print(f"{'split':6}{'pairs':>7}{'unreadable':>12}  size of a half (pairs)")
    for split, pairs in looks.items():
        sizes = Counter(pair.size for pair in pairs).most_common()
        sizes = common.listed([f"{size} ({count})" for size, count in sizes])
        print(f"{split:6}{len(pairs):7}{len(bad[split]):12}  {sizes}")
    heads = ["mean R", "G", "B", "spread R", "G", "B", "colours", "ink"]
    print(f"\n{'in [-1, 1]':17}" + "".join(f"{head:>9}" for head in heads))
    values, rich = tf.range(256.0)[tf.newaxis] / 127.5 - 1.0, {}
    for split, pairs in looks.items():
        shares = sum(pair.shares for pair in pairs) / len(pairs)
        mean, variance = tf.nn.weighted_moments(values, 1, shares)  # (6,) each
        rich[split] = [*tf.reduce_mean([pair.colours for pair in pairs], axis=0), shares]
        ink = f"{sum(pair.ink for pair in pairs) / len(pairs):9.1%}"
        for n, half in enumerate(("condition", "target")):
            numbers = [*mean[3 * n : 3 * n + 3], *tf.sqrt(variance[3 * n : 3 * n + 3])]
            numbers = "".join(f"{number:9.3f}" for number in numbers)
            print(f"{split:7}{half:10}{numbers}{rich[split][n]:9.0f}{'' if n else ink}")
    condition, target, shares = rich["train"]
    found = f"Colours: condition {condition:.0f}, target {target:.0f}"
    dark = not bool(tf.reduce_any(shares[:3, 64:] > 0.0)) if labels else condition < 1.5
    if target < 1.5 or dark:
        common.warn(f"{found}: a half is blank or holds class numbers; see --labels of stage 7")
    elif condition > (256 if labels else 2 * target):  # stage 7 allows 256 classes
        print(f"\n{found}: did you mean the other --direction?")
    elif not known and condition < 48 and tf.reduce_max(tf.abs(shares[0] - shares[2])) > 0.05:
        print(
            f"\n{found}: if the conditions are label maps, dataset.json or --labels should say so"
        )


def warn_of_copies(looks):
    """Warns of halves that are equal, and of validation pairs that nearly equal training pairs."""
    if equal := [pair.path for pairs in looks.values() for pair in pairs if pair.equal]:
        common.warn(f"equal halves; is one missing? ({len(equal)}): {common.listed(equal)}")
    train, some, near = looks["train"], common.spread(looks["val"], 100), []
    small = tf.cast([pair.small for pair in train], tf.float32)
    for pair in some:
        one = tf.cast(pair.small, tf.float32)  # training mirrors its pairs
        gaps = [tf.reduce_mean((small - way) ** 2, (1, 2, 3, 4)) for way in (one, one[:, :, ::-1])]
        if tf.reduce_min(gaps) < NEAR**2:
            near.append(f"{pair.path} and {train[int(tf.argmin(tf.reduce_min(gaps, 0)))].path}")
    if near:
        found = f"{len(near)} of {len(some)} validation pairs nearly equal a training pair"
        common.warn(f"{found}, e.g. {near[0]}: keep a clip in one folder, or scores are too good")


def warn_of_strangers(pairs):
    """Warns if the two halves of a file are hardly more alike than halves of different files."""
    small = tf.cast(tf.concat([pair.small for pair in pairs], axis=0), tf.float32)
    edges = tf.norm(tf.image.sobel_edges(small), axis=-1)
    edges -= tf.reduce_mean(edges, axis=(1, 2), keepdims=True)
    edges = tf.math.l2_normalize(tf.reshape(edges, (len(pairs), 2, -1)), axis=-1)
    alike = tf.matmul(edges[:, 0], edges[:, 1], transpose_b=True)  # (N, N); the diagonal: pairs
    less = tf.cast(alike < tf.linalg.diag_part(alike)[:, tf.newaxis], tf.float32)
    if len(pairs) > 3 and tf.reduce_sum(less) < 0.7 * len(pairs) * (len(pairs) - 1):
        common.warn("halves of a file are hardly more alike than any two halves: are these pairs?")


# === Drawing ================================================================
def draw_pairs(path, files, direction, *, size=common.IMAGE_SIZE, labels=False):
    """Draws some files as they are stored, each beside its condition and its target."""
    shown = common.spread(files, PAIRS_SHOWN)
    figure = Figure((7.2, 1.75 * len(shown) + 0.3), layout="constrained")
    axes = figure.subplots(len(shown), 3, squeeze=False, width_ratios=[2, 1, 1])
    titles = ["the file, split at the middle", "condition", "target"]
    for row, file in zip(axes, shown):
        left, right = decode_pair(file)
        halves = split_stack(resize(read_stack(file, direction), size, labels))
        row[0].axvline(left.shape[1] - 0.5, color="tab:red", linestyle="--")
        row[0].set_xlabel("/".join(Path(file).parts[-2:]), fontsize=8, parse_math=False)
        pictures = [tf.clip_by_value(half * 0.5 + 0.5, 0.0, 1.0) for half in halves]
        for axis, picture in zip(row, [tf.concat([left, right], axis=1), *pictures]):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[], title=titles.pop(0) if titles else "")
    common.save_figure(figure, path)


def draw_augmentations(path, file, direction, seed, *, size=common.IMAGE_SIZE, labels=False):
    """Draws one pair several times with each augmentation, one row for each augmentation."""
    stack, rows = read_stack(file, direction), []
    seeds = [tf.constant([seed, draw], tf.int64) for draw in range(DRAWS_SHOWN)]
    line, gap = tf.zeros((size[0], 2, 3)), tf.ones((size[0], size[1] // 8, 3))  # gray, white
    for augment in AUGMENTATIONS.values():
        halves = [split_stack(augment(stack, seed, size, labels)) for seed in seeds]
        rows.append([tf.concat([drawn, line, real, gap], axis=1) for drawn, real in halves])
    common.save_grid(path, rows, row_titles=list(AUGMENTATIONS), scale=0.6)


def draw_histograms(path, pairs):
    """Draws which values the channels of both halves have, and how much ink the conditions have."""
    figure = Figure((13, 3.6), layout="constrained")
    *axes, last = figure.subplots(1, 3)
    edges = [(n - 0.5) / 127.5 - 1.0 for n in range(257)]
    halves = tf.split(sum(pair.shares for pair in pairs) / len(pairs), 2)
    for axis, half, title in zip(axes, halves, ("condition", "target")):
        for shares, name in zip(half, ("red", "green", "blue")):
            axis.stairs(shares, edges, color=f"tab:{name}", label=name[0].upper())
        axis.set(title=f"values of the {title}", xlabel="in [-1, 1]", ylabel="share", yscale="log")
        axis.legend()
    last.hist([100 * pair.ink for pair in pairs], bins=30, color="0.3")
    last.set(title="ink", xlabel="% of the condition darker than middle gray", ylabel="pairs")
    common.save_figure(figure, path)


# === Command line ===========================================================
def main(argv=None):
    flags = "--out --seed --dataset --direction --size"
    args = common.parser_of(__doc__, flags, out="runs/03_pix2pix_data").parse_args(argv)

    about = common.describe_dataset(args.dataset, args.direction)
    direction, labels = about["direction"], about.get("condition") == "labels"
    notes, out = defaultdict(set), args.out
    form, looks, bad = {"size": args.size, "labels": labels}, {}, {}
    for split, paths in common.find_pairs(args.dataset, notes).items():
        found = [*common.in_threads(lambda path: look(path, direction, **form), paths)]
        looks[split] = [one for one in found if isinstance(one, Look)]
        bad[split] = [f"{p} ({one})" for p, one in zip(paths, found) if isinstance(one, str)]
        if not looks[split]:
            raise common.UserError(f"all of {split} is unusable: {common.listed(bad[split])}")
    out.mkdir(parents=True, exist_ok=True)

    halves = "left half, target = right" if direction == "AtoB" else "right half, target = left"
    print(f"{common.printable(args.dataset)}, {direction}: condition = {halves} half")
    print("Conditions: labels, resized without mixing colours\n" if labels else "")
    print_table(looks, bad, labels, "condition" in about)
    count = sum(map(len, [*looks.values(), *bad.values()]))
    common.tell(notes, f"{count} pictures in the splits")
    warn_of_copies(looks)
    warn_of_strangers(common.spread(looks["train"], 20))
    train = [pair.path for pair in looks["train"]]
    draw_pairs(out / "pairs.png", train, direction, **form)
    draw_augmentations(out / "augmentation.png", train[0], direction, args.seed, **form)
    draw_histograms(out / "histograms.png", looks["train"])
    print(*(f"\n{out / name}.png" for name in ("pairs", "augmentation", "histograms")), sep="")
    if problems := common.listed(sum(bad.values(), [])):
        raise common.UserError(f"--dataset {args.dataset}: fix or remove {problems}; {common.CURE}")
    print("Look at augmentation.png: do both halves move together? Could each draw be a real pair?")
    print("Next: python 04_pix2pix_models.py, or 05_pix2pix_train.py with the same --dataset")


if __name__ == "__main__":
    common.run_main(main)
