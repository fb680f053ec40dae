"""Stage 3: get paired data, and look at them before training on them.

A pair is one picture file: the condition (a sketch, a segmentation map) in one half,
the target (the coloured picture, the photograph) in the other. Split in the middle and
scaled to [-1, 1], a pair is augmented as one stack, so that both halves move together
(Isola et al. 2017, sections 5 and 6.2). What is wrong here, no training mends.

    python 03_pix2pix_data.py
    python 03_pix2pix_data.py --dataset my/folder --direction BtoA

Prints a table and writes, under runs/03_pix2pix_data: pairs.png, augmentation.png,
histograms.png. Takes about 10 seconds for the embedded pairs.

New data come in by one of these, and are looked at in the same way:

    python 03_pix2pix_data.py --download facades
    python 03_pix2pix_data.py --pair sketches photos --out data/mine
    python 03_pix2pix_data.py --edges photos --out data/mine
    python 03_pix2pix_data.py --import-cityscapes DIR

A dataset gets its place only when all that came was decoded.
"""

import argparse
import contextlib
import errno
import functools
import gzip
import http.client
import os
import random
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections import Counter
from pathlib import Path

from common import (
    AUGMENTATIONS,
    HERE,
    IMAGE_SIZE,
    UserError,
    contents_of,
    decode_pair,
    decode_picture,
    find_pairs,
    in_threads,
    list_pictures,
    lock,
    number,
    pair_arguments,
    refuse_unreadable,
    run_main,
    save_figure,
    save_grid,
    split_stack,
    stack_pair,
    unreadable,
    usual_direction,
    warn_of_shared,
)

import keras
import tensorflow as tf
from matplotlib.figure import Figure

BINS = 64
SHOWN_PAIRS = 5
SHOWN_DRAWS = 4
COLOURS = ["tab:red", "tab:green", "tab:blue"]

# The datasets of the paper (appendix 6.1 has their origins): the direction of the usual task,
# and the pairs in each split, where known.
URL = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/{name}.tar.gz"
DATASETS = {
    "facades": ("BtoA", {"train": 400, "val": 100, "test": 106}),  # labels -> photograph
    "cityscapes": ("BtoA", {"train": 2975, "val": 500}),  # labels -> photograph
    "maps": ("BtoA", {"train": 1096, "val": 1098}),  # map -> aerial photograph
    "edges2shoes": ("AtoB", {}),
    "edges2handbags": ("AtoB", {}),
    "night2day": ("BtoA", {}),  # day -> night
}
TRIES = 5  # of a download that does not get on; with BACK_OFF seconds after the first, then twice that ...
BACK_OFF = 1.0
TIMEOUT = 60.0  # seconds without a byte
CHUNK = 2**18  # bytes


# -----------------------------------------------------------------------------
# Getting data
# -----------------------------------------------------------------------------


@contextlib.contextmanager
def new_dataset(out, direction):
    """Gives an empty folder to fill, which becomes `out` when the block ends well."""
    if out.exists():
        raise UserError(f"{out}: is there already; remove it first, or give another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    lock(out.parent)
    folder = out.with_name(f".new.{out.name}")
    shutil.rmtree(folder, ignore_errors=True)  # of a try that was killed
    folder.mkdir()
    try:
        yield folder
        (folder / "direction.txt").write_text(direction + "\n")
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def download_dataset(name, source, out):
    """Fetches and unpacks one of DATASETS.

    Args:
        source: the address of the archive, or the path of one on this machine.
        out: the dataset's folder to be; when it is there, nothing is done.
    """
    direction, known = DATASETS[name]
    if out.exists():
        print(f"{out} is there already; remove it to download it again.\n")
        return
    if not hasattr(tarfile, "data_filter"):
        raise UserError("this Python cannot unpack safely; take 3.10.12, 3.11.4, 3.12 or newer")
    out.parent.mkdir(parents=True, exist_ok=True)
    lock(out.parent)
    fetched = out.with_name(f".{out.name}.tar.gz.part")
    if "://" in source:
        print(f"Fetching {source}", flush=True)
        fetch(source, fetched)
    try:
        with new_dataset(out, direction) as folder:
            unpack(fetched if "://" in source else Path(source), folder)
            pictures = {path.name: list_pictures(path) for path in folder.iterdir() if path.is_dir()}
            counts = {split: len(paths) for split, paths in pictures.items()}
            problems = unreadable([path for split in sorted(pictures) for path in pictures[split]])
            if problems:
                named = (f"{path.removeprefix(str(folder))[1:]} ({why})" for path, why in problems.items())
                raise UserError(f"holds pictures that cannot be used: {', '.join(named)}")
            if not counts.get("train") or not (counts.get("val") or counts.get("test")):
                raise UserError("holds no pictures in train, or none in val and test")
    except UserError as error:
        fetched.unlink(missing_ok=True)  # the next try starts over
        raise UserError(f"{source}: {error}") from error
    fetched.unlink(missing_ok=True)
    for split, count in known.items():
        if counts.get(split, 0) != count:
            words = f"{counts.get(split, 0)} pairs in {split}, and is known to have {count}"
            print(f"Warning: {name} has {words}", file=sys.stderr)


def fetch(url, file):
    """Downloads `url` to `file`, going on where an earlier try stopped.

    Raises:
        UserError: the server says no, or does not get on.
    """
    tries, problem = 0, ""
    with file.open("ab") as output:
        output.seek(0, os.SEEK_END)
        while tries < TRIES:
            time.sleep(BACK_OFF * 2 ** (tries - 1) if tries else 0)
            before = output.tell()
            request_headers = {"Range": f"bytes={before}-"} if before else {}
            try:
                request = urllib.request.Request(url, headers=request_headers)
                with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                    problem = receive(response, output)
                if not problem:
                    return
            except urllib.error.HTTPError as error:
                problem = f"{error.code} {error.reason}"
                if error.code == 416:  # nothing after `before`: we have it all, or something else
                    if error.headers.get("Content-Range") == f"bytes */{before}":
                        return
                    output.truncate(0)
                elif error.code < 500 and error.code not in {408, 429}:
                    if not before:
                        file.unlink()
                    raise UserError(f"{url}: {problem}; give a mirror with --url") from error
            except (ValueError, http.client.InvalidURL) as error:
                raise UserError(f"--url {url}: {error}") from error
            except (OSError, http.client.HTTPException) as error:
                if getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}:
                    raise
                problem = str(getattr(error, "reason", error) or type(error).__name__)
            tries = 1 if output.seek(0, os.SEEK_END) > before else tries + 1  # it got on: as good as new
    raise UserError(f"{url}: {problem}; run the command again to go on, or give a mirror with --url")


def receive(response, output):
    """Adds what a server sends to the open file `output`; returns what was wrong with it, or ""."""
    if response.headers.get_content_type() == "text/html":
        return "a web page comes, and no archive"
    if response.status != 206:  # the server knows no ranges: all of it again
        output.truncate(0)
    before = output.seek(0, os.SEEK_END)
    length = response.headers.get("Content-Length")
    total = before + int(length) if length else None
    target = total and max(1, round(total / 1e6))
    bar = keras.utils.Progbar(target, unit_name="MB", stateful_metrics=["MB/s"], interval=0.5)
    started = time.monotonic()
    while chunk := response.read1(CHUNK):
        output.write(chunk)
        if sys.stdout.isatty():
            rate = (output.tell() - before) / 1e6 / max(time.monotonic() - started, 1e-3)
            bar.update(round(output.tell() / 1e6), [("MB/s", rate)], finalize=output.tell() == total)
    return f"{output.tell()} of {total} bytes came" if total not in {None, output.tell()} else ""


def unpack(archive, folder):
    """Unpacks a .tar.gz with train/ in it, or in its one folder, so that `folder` holds train/.

    Raises:
        UserError: damaged, or holds anything but plain files and folders.
    """
    if not archive.is_file():
        raise UserError("no such file")
    limit = 20 * archive.stat().st_size + 10**7  # pictures do not shrink twentyfold
    unpacked = 0

    def plain_file(member, path):
        nonlocal unpacked
        unpacked += member.size
        if unpacked > limit:
            raise UserError("holds far more than its size allows; not unpacked")
        outside = member.name.startswith("/") or ".." in Path(member.name).parts
        if outside or not (member.isfile() or member.isdir()):
            raise UserError(f"holds {member.name!r}, a link, a device or a path outside; not unpacked")
        return tarfile.data_filter(member, path)

    try:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(folder, filter=plain_file)
            while tar.fileobj.read(CHUNK):  # to the end, where the checksum is
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise UserError(f"damaged, or not a .tar.gz ({error})") from error
    inner = [path for path in folder.iterdir() if (path / "train").is_dir()]
    if not (folder / "train").is_dir() and len(inner) == 1:
        for path in inner[0].iterdir():
            path.rename(folder / path.name)
        inner[0].rmdir()


def by_stem(flag, folder):
    """Returns {name without extension: path} of a folder's pictures; refuses what is damaged."""
    if not Path(folder).is_dir():
        raise UserError(f"{flag} {folder}: no such folder")
    paths = list_pictures(folder)
    if not paths:
        raise UserError(f"{flag} {folder}: no .jpg, .jpeg or .png in it")
    refuse_unreadable(f"{flag} {folder}", unreadable(paths))
    twice = [stem for stem, count in Counter(Path(path).stem for path in paths).items() if count > 1]
    if twice:
        raise UserError(f"{folder}: more than one file of the name {', '.join(twice)}: keep one of each")
    return {Path(path).stem: path for path in paths}


def write_pairs(folder, makers):
    """Writes one split of a dataset.

    Args:
        makers: {name: function of no argument that returns the left and the right half,
            both (height, width, 3) uint8}.
    """
    folder.mkdir()

    def write(name):
        left, right = makers[name]()
        if left.shape != right.shape:
            sizes = ", ".join(f"{half.shape[1]}x{half.shape[0]}" for half in (left, right))
            return f"{name} ({sizes})"
        tf.io.write_file(str(folder / f"{name}.png"), tf.io.encode_png(tf.concat([left, right], axis=1)))
        return None

    unequal = [words for words in in_threads(write, sorted(makers)) if words]
    if unequal:
        raise UserError(f"halves that are not of one size: {', '.join(unequal)}")


def write_splits(folder, makers, val_share, seed):
    """Writes train/ and val/; the seed chooses the share of pairs that is kept for validation."""
    count = round(val_share * len(makers))
    if not 0 < count < len(makers):
        raise UserError(f"--val-share {val_share:g}: of {len(makers)} pairs, {count} would be in val")
    chosen = random.Random(seed).sample(sorted(makers), count)
    write_pairs(folder / "val", {name: makers[name] for name in chosen})
    write_pairs(folder / "train", {name: makers[name] for name in makers.keys() - set(chosen)})


def join_folders(conditions, pictures, folder, val_share, seed):
    """Joins the pictures of two folders that have the same name, the condition on the left."""
    left, right = by_stem("--pair", conditions), by_stem("--pair", pictures)
    for one, other, name in ((left, right, pictures), (right, left, conditions)):
        alone = [one[stem] for stem in sorted(one.keys() - other.keys())]
        if alone:
            print(f"Warning: left out, without a partner in {name}: {', '.join(alone)}", file=sys.stderr)
    both = left.keys() & right.keys()
    if not both:
        raise UserError(f"--pair: no file in {conditions} has the name of one in {pictures}")

    def make(stem):
        return decode_picture(left[stem]), decode_picture(right[stem])

    write_splits(folder, {stem: functools.partial(make, stem) for stem in both}, val_share, seed)


def resized(path, method="bilinear"):
    """Reads a picture as (256, 256, 3) uint8."""
    picture = tf.image.resize(decode_picture(path), (IMAGE_SIZE, IMAGE_SIZE), method, antialias=True)
    return tf.cast(tf.round(picture), tf.uint8)


def draw_edges(picture):
    """Makes a sketch of a photograph: dark lines where the brightness changes.

    Args:
        picture: (height, width, 3) uint8.

    Returns:
        The same, black on white.
    """
    gray = tf.image.rgb_to_grayscale(tf.cast(picture[tf.newaxis], tf.float32) / 255.0)  # (1, H, W, 1)
    for _ in range(2):  # grain is no edge
        gray = tf.nn.avg_pool2d(tf.pad(gray, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC"), 3, 1, "VALID")
    strength = tf.norm(tf.image.sobel_edges(gray), axis=-1)  # (1, H, W, 1)
    in_order = tf.sort(tf.reshape(strength, [-1]))
    strong = tf.maximum(in_order[int(0.95 * len(in_order))], 0.05)  # an empty sky stays empty
    ink = tf.clip_by_value(1.5 * strength / strong - 0.5, 0.0, 1.0)
    return tf.cast(tf.round(255.0 * (1.0 - tf.repeat(ink[0], 3, axis=-1))), tf.uint8)


def sketch_folder(pictures, folder, val_share, seed):
    """Makes pairs of photographs alone: the edges on the left, the photograph on the right."""

    def make(path):
        picture = resized(path)
        return draw_edges(picture), picture

    makers = {stem: functools.partial(make, path) for stem, path in by_stem("--edges", pictures).items()}
    write_splits(folder, makers, val_share, seed)


def import_cityscapes(source, folder):
    """Pairs the street photographs of Cityscapes (left) with their coloured label maps (right).

    Args:
        source: the folder that holds leftImg8bit/ and gtFine/ of cityscapes-dataset.com.
    """
    found = {}
    for split in ("train", "val"):
        kinds = {"leftImg8bit": "_leftImg8bit.png", "gtFine": "_gtFine_color.png"}
        photos, labels = (
            {path.name.removesuffix(end): str(path) for path in source.glob(f"{kind}/{split}/*/*{end}")}
            for kind, end in kinds.items()
        )
        alone = sorted(photos.keys() ^ labels.keys())
        if alone:
            print(f"Warning: left out of {split}, without a partner: {', '.join(alone)}", file=sys.stderr)
        found[split] = {name: (photos[name], labels[name]) for name in photos.keys() & labels.keys()}
        if not found[split]:
            pictures = f"leftImg8bit/{split}/CITY/*.png with a gtFine/{split}/CITY/*_color.png"
            raise UserError(f"--import-cityscapes {source}: no {pictures}")
    paths = sorted(path for pairs in found.values() for pair in pairs.values() for path in pair)
    refuse_unreadable(f"--import-cityscapes {source}", unreadable(paths))

    def make(photo, labels):
        return resized(photo), resized(labels, "nearest")  # no colours that mean nothing

    for split, pairs in found.items():
        write_pairs(folder / split, {name: functools.partial(make, *pair) for name, pair in pairs.items()})


# -----------------------------------------------------------------------------
# Looking at data
# -----------------------------------------------------------------------------


def measure(paths, direction):
    """Measures the pairs of one split.

    Returns:
        sizes: Counter of "width x height" of a half, before it is resized to 256x256.
        mean, spread: two lists of 6 numbers in [-1, 1]: the condition's R, G, B, the
            target's R, G, B; mean and standard deviation over all pixels.
        counts: (6, BINS) how many pixels of each channel have each value.
        ink: for each pair, the share of the condition that is darker than middle gray.
        colours: how many the condition and the target have, of 16 levels a channel; mean.
    """

    def read(path):
        left, right = decode_pair(path)
        return tf.shape(left), stack_pair(left, right, direction)

    sizes, ink, stacks, colours = Counter(), [], 0, tf.zeros(2)
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
        condition, target = split_stack(stack)
        colours += [count_colours(condition), count_colours(target)]
        ink.append(float(tf.reduce_mean(tf.cast(tf.reduce_mean(condition, axis=-1) < 0.0, tf.float32))))
    mean = total / stacks
    spread = tf.sqrt(tf.maximum(squares / stacks - mean**2, 0.0))
    return (
        sizes,
        [float(m) for m in mean],
        [float(s) for s in spread],
        counts,
        ink,
        [float(c) / stacks for c in colours],
    )


def count_colours(picture):
    """Returns the number of colours in a picture, when each channel has 16 levels."""
    levels = tf.cast(tf.minimum((picture + 1.0) * 8.0, 15.0), tf.int32)
    names = tf.reduce_sum(levels * tf.constant([256, 16, 1]), axis=-1)
    return float(len(tf.unique(tf.reshape(names, [-1])).y))


def print_table(measured, bad, direction):
    print(f"{'split':6}{'pairs':>7}{'unreadable':>12}  size of a half (pairs)")
    for split, (sizes, *_) in measured.items():
        common_sizes = ", ".join(f"{size} ({n})" for size, n in sizes.most_common(4))
        more = f", and {len(sizes) - 4} more sizes" if len(sizes) > 4 else ""
        print(f"{split:6}{sizes.total():7}{len(bad[split]):12}  {common_sizes}{more}")
    heads = f"{'mean R':>8}{'G':>8}{'B':>8}{'spread R':>11}{'G':>8}{'B':>8}{'colours':>9}{'ink':>8}"
    print(f"\n{'in [-1, 1]':17}{heads}")
    for split, (_, mean, spread, _, ink, colours) in measured.items():
        halves = (("condition", slice(0, 3), colours[0]), ("target", slice(3, 6), colours[1]))
        for half, c, count in halves:
            means = "".join(f"{m:8.3f}" for m in mean[c])
            spreads = "".join(f"{s:8.3f}" for s in spread[c])
            share = f"{sum(ink) / len(ink):8.1%}" if half == "condition" else ""
            print(f"{split:7}{half:10}{means}   {spreads}{count:9.0f}{share}")
    condition, target = measured["train"][-1]
    if condition > 2 * target:
        other = {"AtoB": "BtoA", "BtoA": "AtoB"}[direction]
        print(
            f"\nThe condition has {condition:.0f} colours and the target {target:.0f}: if you want to go "
            f"from the plain picture to the rich one, it is --direction {other}"
        )


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


def bring_in(args):
    """Makes the new dataset that the flags ask for, if any; returns the dataset to look at."""
    if args.download:
        out = args.out or HERE / "data" / args.download
        download_dataset(args.download, args.url or URL.format(name=args.download), out)
    elif args.import_cityscapes:
        out = args.out or HERE / "data" / "cityscapes"
        with new_dataset(out, "BtoA") as folder:
            import_cityscapes(args.import_cityscapes, folder)
    elif args.pair or args.edges:
        if not args.out:
            raise UserError("--out: name the new dataset's folder, e.g. --out data/mine")
        out = args.out
        with new_dataset(out, "AtoB") as folder:
            if args.pair:
                join_folders(*args.pair, folder, args.val_share, args.seed)
            else:
                sketch_folder(args.edges, folder, args.val_share, args.seed)
    else:
        return args.dataset
    return str(out)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pair_arguments(parser)
    parser.add_argument("--seed", type=number(0, 2**31 - 1, int), default=0, help="(0)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the new dataset, or of the figures"
    )
    parser.add_argument("--url", metavar="URL|FILE", help="with --download: a mirror, or an archive at hand")
    parser.add_argument("--val-share", type=number(0, 1), default=0.2, help="with --pair, --edges (0.2)")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--download", choices=list(DATASETS), help="a dataset of the paper, to data/")
    group.add_argument("--import-cityscapes", type=Path, metavar="DIR", help="with leftImg8bit/ and gtFine/")
    group.add_argument("--pair", nargs=2, metavar=("CONDITIONS", "PICTURES"), help="join two folders by name")
    group.add_argument("--edges", metavar="PICTURES", help="make sketches of a folder of photographs")
    args = parser.parse_args()
    new = args.download or args.import_cityscapes or args.pair or args.edges
    if args.url and not args.download:
        raise UserError("--url: goes with --download")
    if new and args.dataset != parser.get_default("dataset"):
        raise UserError(f"--dataset {args.dataset}: is there already; a new dataset's folder is --out")

    dataset = bring_in(args)
    figures = Path("runs/03_pix2pix_data") if new or not args.out else args.out
    direction = args.direction or usual_direction(dataset)
    pairs = find_pairs(dataset)
    bad = {split: unreadable(paths) for split, paths in pairs.items()}
    good = {split: [p for p in paths if p not in bad[split]] for split, paths in pairs.items()}
    for split, paths in good.items():
        if not paths:
            raise UserError(f"--dataset {dataset}: no readable picture in {split}")
    figures.mkdir(parents=True, exist_ok=True)

    sides = ("left", "right") if direction == "AtoB" else ("right", "left")
    print(f"{dataset}, {direction}: condition = {sides[0]} half, target = {sides[1]} half\n")
    measured = {split: measure(paths, direction) for split, paths in good.items()}
    print_table(measured, bad, direction)
    warn_of_shared(good, contents_of(good["train"] + good["val"]))

    draw_pairs(figures / "pairs.png", good["train"], direction)
    draw_augmentations(figures / "augmentation.png", good["train"][0], direction, args.seed)
    draw_histograms(figures / "histograms.png", *measured["train"][3:5])
    print(
        f"\n{figures / 'pairs.png'}         some files and the halves they give\n"
        f"{figures / 'augmentation.png'}  one pair under each --augment of stage 5\n"
        f"{figures / 'histograms.png'}    values of both halves, ink (training pairs)"
    )
    refuse_unreadable(f"--dataset {dataset}", bad["train"] | bad["val"])


if __name__ == "__main__":
    run_main(main)
