"""Stage 7: get pairs to train on: those of the paper, or pairs of your own.

A dataset is a folder with train/ and val/ in it, full of side-by-side pictures (see stage
3). This script makes one in one of four ways:

    python 07_get_pairs.py --download facades
    python 07_get_pairs.py --pair sketches photos --out data/mine
    python 07_get_pairs.py --pair maps photos --labels --out data/mine
    python 07_get_pairs.py --edges photos --out data/mine
    python 07_get_pairs.py --import-cityscapes DIR

--download fetches a dataset of Isola et al. 2017 (appendix 6.2) to data/NAME; run again
after an interruption, it goes on where it stopped. --pair joins the pictures of two
folders that have the same name, the condition on the left; with --labels the conditions are
label maps, whose class numbers become colours. --edges makes a sketch of each photograph,
so that a network can learn to go from the sketch to the photograph. --import-cityscapes
takes the pictures that you got from cityscapes-dataset.com under your own licence.

Pictures of your own may be of any format that Pillow reads, turned by EXIF, as large as a
phone makes them, in sub-folders; train/ and val/ stay what they are where both folders have
them. Large ones are made smaller, to what stage 5 can use at its --size: by default enough
for 512x512; to train at 1024, say --size 1024 here too. A file that cannot be used is named
and left out. The dataset appears under its name only when it is complete; its dataset.json
says which half is the condition, and of what kind. The last lines name the next two commands.

Takes a few seconds for some hundred pictures; a download, as long as the network takes.
"""

import contextlib
import csv
import errno
import gzip
import http.client
import json
import os
import random
import shlex
import shutil
import sys
import tarfile
import time
import unicodedata
import urllib.error
import urllib.request
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

import common
from common import HERE, UnreadableError, UserError, picture_size, read_picture

import keras
import tensorflow as tf
from matplotlib.figure import Figure

# The datasets of the paper: the direction of the usual task, what its conditions are, and how
# many pairs each split has, where that is known.
URL = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/{name}.tar.gz"
DATASETS = {
    "facades": ("BtoA", "labels", {"train": 400, "val": 100, "test": 106}),  # -> photograph
    "cityscapes": ("BtoA", "labels", {"train": 2975, "val": 500}),  # -> photograph
    "maps": ("BtoA", "picture", {"train": 1096, "val": 1098}),  # map -> aerial photograph
    "edges2shoes": ("AtoB", "sketch", {}),
    "edges2handbags": ("AtoB", "sketch", {}),
    "night2day": ("BtoA", "picture", {}),  # day -> night
}
TRIES = 5  # requests in a row that bring nothing, before a download is given up
BACK_OFF = 1.0  # seconds to wait after the first of them; twice as long after each further one
TIMEOUT = 60.0  # seconds without a byte, before a request is given up
CHUNK = 2**18  # bytes to read at once
MOST_CLASSES = 256  # of label maps; what has more colours is a photograph, or was saved as JPEG
# The classes' names in Cityscapes' own colours; what is not counted there shares black.
CITYSCAPES = {
    "#000000": "unlabeled", "#6f4a00": "dynamic", "#510051": "ground", "#804080": "road",
    "#f423e8": "sidewalk", "#faaaa0": "parking", "#e6968c": "rail track", "#464646": "building",
    "#66669c": "wall", "#be9999": "fence", "#b4a5b4": "guard rail", "#966464": "bridge",
    "#96785a": "tunnel", "#999999": "pole", "#faaa1e": "traffic light", "#dcdc00": "traffic sign",
    "#6b8e23": "vegetation", "#98fb98": "terrain", "#4682b4": "sky", "#dc143c": "person",
    "#ff0000": "rider", "#00008e": "car", "#000046": "truck", "#003c64": "bus", "#00005a": "caravan",
    "#00006e": "trailer", "#005064": "train", "#0000e6": "motorcycle", "#770b20": "bicycle",
}  # fmt: skip


@contextlib.contextmanager
def new_dataset(out, about):
    """Gives an empty folder to fill, which becomes `out` when the block ends without an error.

    Until then it is in a temporary folder beside `out`, which this process alone may use. One
    that a killed process has left there is used again.

    Args:
        out: path of the dataset, which must not exist yet.
        about: dict of what is to be in its dataset.json (see `common.describe_dataset`); what
            the block adds is kept as well.

    Raises:
        UserError: `out` exists, or another process is making it.
    """
    refuse_existing(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".new.{out.name}")
    temporary.mkdir(exist_ok=True)
    lock = common.lock(temporary)
    folder = temporary / "dataset"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        refuse_existing(out)  # another process may have made it a moment ago
        folder.mkdir()
        yield folder
        text = json.dumps(about, indent=2, ensure_ascii=False)
        (folder / "dataset.json").write_text(text + "\n", encoding="utf-8")
        common.rename(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)  # last, since the lock is in it
        os.close(lock)
        if common.WINDOWS:  # where no open file can be removed
            shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(out):
    """Raises UserError if there is something at the path of a new dataset."""
    if out.exists():
        raise UserError(f"{out}: already exists; remove it first, or give another --out")


# === The paper's datasets: download and unpack ==============================


def download_dataset(name, source, out):
    """Fetches and unpacks one of DATASETS.

    Args:
        source: the address of the archive, or the path of one on this machine.
        out: path of the dataset, which must not exist yet.

    Raises:
        UserError: it cannot be fetched, or the archive is damaged, dangerous or no dataset.
    """
    direction, condition, known_counts = DATASETS[name]
    is_address = "://" in source
    about = {"direction": direction, "condition": condition, "origin": f"--download {name}, {source}"}
    with new_dataset(out, about) as folder:
        fetched = out.with_name(f".{out.name}.tar.gz.part")
        if is_address:
            print(f"Fetching {common.printable(source)}", flush=True)
            fetch(source, fetched)
        try:
            unpack(fetched if is_address else Path(source), folder)
            counts = check_dataset(folder)
        except UserError as error:
            if is_address:
                fetched.unlink()  # the next try has to start over
            raise UserError(f"{source}: {error}") from error
    fetched.unlink(missing_ok=True)
    for split, known in known_counts.items():
        if counts.get(split, 0) != known:
            common.warn(f"{name} has {counts.get(split, 0)} pairs in {split}, but is known to have {known}")


def fetch(url, file):
    """Downloads `url` to `file`, which may hold the first bytes of it from an earlier try.

    Raises UserError if the server refuses, or some requests in a row brought nothing; OSError
    if the disk is full.
    """
    failures = 0  # requests that failed since one that brought something, that one included
    try:
        with file.open("ab") as output:
            before = output.seek(0, os.SEEK_END)
            while problem := request(url, output):
                size = output.seek(0, os.SEEK_END)
                failures = 1 if size > before else failures + 1
                if failures == TRIES:
                    cure = "run the command again to go on, or give a mirror with --url"
                    raise UserError(f"{url}: {problem}; {cure}")
                time.sleep(BACK_OFF * 2 ** (failures - 1))
                before = size
    except BaseException:
        if file.exists() and not file.stat().st_size:
            file.unlink()
        raise


def request(url, output):
    """Asks once for the bytes that the open file `output` does not have yet, and adds them.

    Returns:
        What went wrong and may go well the next time, or "" when the file is complete.

    Raises:
        UserError: it cannot go well the next time either.
        OSError: the disk is full.
    """
    start = output.tell()
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        asked = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(asked, timeout=TIMEOUT) as response:
            return receive(response, output)
    except urllib.error.HTTPError as error:
        problem = f"{error.code} {error.reason}"
        if error.code == 416:  # nothing after `start`: the file is complete, or part of something else
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return ""
            output.truncate(0)
        elif error.code < 500 and error.code not in {408, 429}:
            raise UserError(f"{url}: {problem}; give a mirror with --url") from error
        return problem
    except (ValueError, http.client.InvalidURL) as error:
        raise UserError(f"--url {url}: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}:
            raise
        return str(getattr(error, "reason", error) or type(error).__name__)


def receive(response, output):
    """Adds what a server sends to the open file `output`; returns what was wrong with it, or ""."""
    if response.headers.get_content_type() == "text/html":
        return "the server sends a web page, not an archive"
    if response.status != 206:  # it does not know ranges, and sends all of it again
        output.truncate(0)
    before = output.seek(0, os.SEEK_END)
    length = response.headers.get("Content-Length")
    total = before + int(length) if length else None
    megabytes = max(1, round(total / 1e6)) if total else None
    bar = keras.utils.Progbar(megabytes, unit_name="MB", stateful_metrics=["MB/s"], interval=0.5)
    started = time.monotonic()
    while chunk := response.read1(CHUNK):
        output.write(chunk)
        if sys.stdout.isatty():
            rate = (output.tell() - before) / 1e6 / max(time.monotonic() - started, 1e-3)
            bar.update(round(output.tell() / 1e6), [("MB/s", rate)], finalize=output.tell() == total)
    if total is not None and output.tell() != total:
        return f"{output.tell()} of {total} bytes came"
    return ""


class Decompressed:
    """The contents of an open gzip file, read from front to back: what tarfile needs of a file.

    Whatever they are (pictures, headers, padding), no more than `limit` bytes are read.
    """

    def __init__(self, file, limit):
        self.file, self.limit, self.position = file, limit, 0

    def tell(self):
        return self.position

    def read(self, size):
        if not 0 <= size <= CHUNK:  # tarfile reads a header at once, but pictures piece by piece
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        data = self.file.read(size)
        self.position += len(data)
        if self.position > self.limit:
            raise UserError("holds far more than its size allows; not unpacked")
        return data

    def seek(self, position):
        if position < self.position:
            raise tarfile.StreamError("a header that leads backwards")
        while self.position < position and self.read(min(CHUNK, position - self.position)):
            pass


def unpack(archive, folder):
    """Unpacks a .tar.gz with train/ in it, or in its one folder, so that `folder` holds train/.

    Raises UserError if it is damaged, or far larger than pictures can be, or holds anything
    but plain files and folders; OSError if the disk is full.
    """
    if not archive.is_file():
        raise UserError("no such file")
    size = archive.stat().st_size
    most_bytes = 10**7 + 20 * size  # compression makes pictures hardly any smaller
    most_members = 1000 + size // 1000  # a picture has more than 1000 bytes
    try:
        with gzip.open(archive) as file:
            contents = Decompressed(file, most_bytes)
            tar = tarfile.TarFile(fileobj=contents)
            for count, member in enumerate(tar, start=1):
                if count > most_members or contents.tell() + member.size > most_bytes:
                    raise UserError("holds far more than its size allows; not unpacked")
                unpack_member(tar, member, folder)
            while contents.read(CHUNK):  # to the end, where gzip's checksum is
                pass
    except (tarfile.TarError, EOFError, zlib.error, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"damaged, or not a .tar.gz ({error})") from error
    except OSError as error:
        # No gzip file at all, or a name that is taken twice or too long. Else it is the disk.
        names = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
        if isinstance(error, gzip.BadGzipFile) or error.errno in names:
            raise UserError(f"damaged, or not a .tar.gz ({error.strerror or error})") from error
        raise
    inner = [path for path in folder.iterdir() if (path / "train").is_dir()]
    if not (folder / "train").is_dir() and len(inner) == 1:
        for path in inner[0].iterdir():
            common.rename(path, folder / path.name)
        inner[0].rmdir()


def unpack_member(tar, member, folder):
    """Writes a file, or makes a folder, of an archive; raises UserError for anything else.

    No link is ever made, so a path without .. stays within `folder`, on Windows too, where
    ..\\x and C:x lead outside.
    """
    path = PurePosixPath(member.name)
    readings = path, PureWindowsPath(member.name)
    outside = any(p.anchor or ".." in p.parts or len(p.parts) > 10 for p in readings)
    plain = (member.isfile() or member.isdir()) and not member.issparse()
    if outside or not plain:
        kind = "a link, a device, or a path that leads outside or too deep"
        raise UserError(f"holds {member.name[:100]!r}, {kind}; not unpacked")
    if member.isdir():
        (folder / path).mkdir(parents=True, exist_ok=True)
    else:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with (folder / path).open("wb") as output:
            shutil.copyfileobj(tar.extractfile(member), output)


def check_dataset(folder):
    """Decodes all pictures of an unpacked dataset, and returns {split: number of pictures}.

    Raises UserError if a picture cannot be used, or a split is missing.
    """
    pictures = {path.name: common.list_pictures(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    counts = {split: len(paths) for split, paths in pictures.items()}
    problems = common.find_unreadable([path for paths in pictures.values() for path in paths])
    if problems:
        named = (f"{path.removeprefix(str(folder))[1:]} ({problem})" for path, problem in problems.items())
        raise UserError(f"holds pictures that cannot be used: {', '.join(named)}")
    if not counts.get("train") or not (counts.get("val") or counts.get("test")):
        raise UserError("holds no pictures in train, or none in val and test")
    return counts


# === Pairs of your own: join two folders, draw edges, import Cityscapes =====


def files_by_name(flag, folder, left_out):
    """Returns {name: path} of the pictures in a folder and its sub-folders.

    A name is the path in the folder without the extension, in the composed form of Unicode: macOS
    writes a letter and its accent, or the parts of a Korean syllable, as characters of their own.

    Raises:
        UserError: there is no such folder, no picture, or two have the same name.
    """
    if not folder.is_dir():
        raise UserError(f"{flag} {folder}: no such folder")
    paths = {}
    for file in common.find_pictures(folder, left_out):
        name = unicodedata.normalize("NFC", file.relative_to(folder).with_suffix("").as_posix())
        paths.setdefault(name, []).append(file)
    if not paths:
        left_out.tell("0 pairs made")
        raise UserError(f"{flag} {folder}: no picture in it that can be read")
    repeated = [str(file) for same in paths.values() if len(same) > 1 for file in same]
    if repeated:
        raise UserError(f"{flag} {folder}: more than one file of a name, keep one: {', '.join(repeated)}")
    return {name: same[0] for name, same in paths.items()}


def write_pairs(folder, names, make, left_out):
    """Writes pairs as PNG.

    Args:
        names: dict of what `make` is called with, and of what the file is to be called.
        make: function that returns the left and the right half of a pair, both (height, width,
            3) uint8 of one size; what it raises as UnreadableError is left out.

    Returns:
        The names of the pairs that were written.
    """
    folder.mkdir()

    def write(item):
        name, file = item
        try:
            pair = tf.concat(make(name), axis=1)
        except UnreadableError as error:
            return error
        tf.io.write_file(str(folder / f"{file}.png"), tf.io.encode_png(pair))
        return None

    with common.filtering_logs():
        errors = common.in_threads(write, names.items())
    for error in filter(None, errors):
        left_out.add(error.path, error.problem)
    return [name for name, error in zip(names, errors) if not error]


def write_splits(folder, names, make, args, left_out):
    """Writes train/ and val/ in `folder`: those of the names, or as the seed decides.

    Args:
        names: of all pairs, each with the path in its folder. If all lie in train/ and val/ (or
            test/), they stay there.
        make: as for `write_pairs`.

    Returns:
        The names of the pairs that were written.

    Raises:
        UserError: one of the two would be empty, or two pairs would have one file.
    """
    tops = {name.partition("/")[0] for name in names if "/" in name}
    keep = "train" in tops and bool(tops & {"val", "test"})
    if keep and (args.val_share is not None or args.seed is not None):
        flag = "--seed" if args.val_share is None else "--val-share"
        raise UserError(f"{flag}: the pictures lie in train/ and {' and '.join(tops - {'train'})}/ already")
    splits = {}
    for name in sorted(names):
        top, _, rest = name.partition("/")
        if keep and not (rest and top in {"train", "val", "test"}):
            left_out.add(names[name], "neither in train/ nor in val/, which other pictures are in")
            continue
        file = (rest if keep else name).replace("/", "_")
        split = splits.setdefault(top if keep else "train", {})
        if file in split.values():
            other = next(other for other in split if split[other] == file)
            raise UserError(
                f"{names[name]} and {names[other]} would have the same file, {file}.png: rename one"
            )
        split[name] = file
    written = []
    for split, files in splits.items():
        done = write_pairs(folder / split, files, make, left_out)
        if not done and keep:
            left_out.tell("0 pairs made")
            raise UserError(f"no pair of {split}/ can be used")
        written += done
    if not keep:
        share = 0.2 if args.val_share is None else args.val_share
        count = round(share * len(written))
        if not 0 < count < len(written):
            left_out.tell(f"{len(written)} pairs made")
            raise UserError(f"--val-share {share:g}: {count} of {len(written)} pairs would be in val")
        (folder / "val").mkdir()
        for name in random.Random(args.seed or 0).sample(sorted(written), count):
            file = f"{splits['train'][name]}.png"
            common.rename(folder / "train" / file, folder / "val" / file)
    return written


def leave_out_unmatched(paths, others, other_folder, left_out):
    """Leaves out the files in {name: path} that have no partner among the others."""
    for name in sorted(paths.keys() - others.keys()):
        left_out.add(paths[name], f"without a partner in {other_folder}")


def size_of_pair(left, right, training_size):
    """Returns (width, height) of the smaller one of two pictures, or less if that is plenty.

    Args:
        training_size: (height, width).

    Raises:
        UnreadableError: they cannot show the same, as their proportions differ by more than 2%.
    """
    (width, height), (other_width, other_height) = sizes = picture_size(left), picture_size(right)
    if not 1 / 1.02 <= width * other_height / (other_width * height) <= 1.02:
        ours, theirs = (f"{width}x{height}" for width, height in sizes)
        raise UnreadableError(left, f"of other proportions than its partner ({ours}, {theirs}): crop one")
    return common.kept_size(min(sizes), training_size)


def join_folders(args, folder, about, left_out):
    """Joins the pictures of two folders that have the same name, the condition on the left.

    Returns:
        How many pairs there are.
    """
    conditions, targets = args.pair
    left, right = (files_by_name("--pair", path, left_out) for path in args.pair)
    leave_out_unmatched(left, right, targets, left_out)
    leave_out_unmatched(right, left, conditions, left_out)
    names = {name: left[name] for name in left if name in right}
    if not names:
        raise UserError(f"--pair: no file in {conditions} has the name of one in {targets}")
    if args.labels is None:
        legend = None
    else:
        legend = make_legend(names, read_palette(args.labels) if args.labels else {}, left_out)
        names = {name: path for name, path in names.items() if name in legend.present}

    def make(name):
        size = size_of_pair(left[name], right[name], args.size)
        condition = legend.paint(left[name], size) if legend else read_picture(left[name], size)
        return condition, read_picture(right[name], size)

    written = write_splits(folder, names, make, args, left_out)
    if legend:
        write_legend(legend, written, folder, about)
    else:
        paths = [str(path) for path in sorted(folder.glob("train/*.png"))]
        about["condition"] = common.look_at_conditions(paths, "AtoB")
    return len(written)


def read_resized(path, size):
    """Reads a picture as (*size, 3) uint8; size: (height, width)."""
    kept = common.kept_size(picture_size(path), size)
    picture = tf.image.resize(read_picture(path, kept), size, antialias=True)
    return tf.cast(tf.round(picture), tf.uint8)


def draw_edges(picture):
    """Makes a sketch of a photograph: dark lines where the brightness changes.

    Args:
        picture: (height, width, 3) uint8.

    Returns:
        (height, width, 3) uint8, black on white.
    """
    gray = tf.image.rgb_to_grayscale(tf.cast(picture[tf.newaxis], tf.float32) / 255.0)  # (1, H, W, 1)
    for _ in range(2):  # blurred twice, so that grain does not count as edges
        gray = tf.nn.avg_pool2d(tf.pad(gray, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC"), 3, 1, "VALID")
    strength = tf.norm(tf.image.sobel_edges(gray), axis=-1)  # (1, H, W, 1)
    ascending = tf.sort(tf.reshape(strength, [-1]))
    strong = tf.maximum(ascending[int(0.95 * len(ascending))], 0.05)  # an empty sky stays empty
    ink = tf.clip_by_value(1.5 * strength / strong - 0.5, 0.0, 1.0)
    return tf.cast(tf.round(255.0 * (1.0 - tf.repeat(ink[0], 3, axis=-1))), tf.uint8)


def sketch_folder(args, folder, left_out):
    """Makes pairs of a folder of photographs: edges on the left, the photograph on the right.

    Returns:
        How many pairs there are.
    """
    paths = files_by_name("--edges", args.edges, left_out)

    def make(name):
        picture = read_resized(paths[name], args.size)
        return draw_edges(picture), picture

    return len(write_splits(folder, paths, make, args, left_out))


def import_cityscapes(args, folder, about, left_out):
    """Pairs the street photographs of Cityscapes (left) with their coloured label maps (right).

    Returns:
        How many pairs there are.
    """
    source = args.import_cityscapes  # has leftImg8bit/ and gtFine/ in it
    photos, labels = {}, {}  # {split/name: path}
    for split in ("train", "val"):
        for paths, kind, end in ((photos, "leftImg8bit", "leftImg8bit"), (labels, "gtFine", "gtFine_color")):
            for path in sorted(source.glob(f"{kind}/{split}/*/*_{end}.png")):
                paths[f"{split}/{path.name.removesuffix(f'_{end}.png')}"] = path
        if not any(name.startswith(split) for name in photos.keys() & labels.keys()):
            wanted = f"leftImg8bit/{split}/CITY/*.png with a gtFine/{split}/CITY/*_color.png"
            raise UserError(f"--import-cityscapes {source}: no {wanted}")
    leave_out_unmatched(photos, labels, source / "gtFine", left_out)
    leave_out_unmatched(labels, photos, source / "leftImg8bit", left_out)
    names = {name: labels[name] for name in labels if name in photos}
    legend = make_legend(names, dict(enumerate(CITYSCAPES.items())), left_out)

    def make(name):
        return read_resized(photos[name], args.size), legend.paint(labels[name], args.size[::-1])

    written = []
    for split in ("train", "val"):
        files = {name: name.partition("/")[2] for name in legend.present if name.startswith(split)}
        written += write_pairs(folder / split, files, make, left_out)
    write_legend(legend, written, folder, about)
    return len(written)


# === Label maps: class numbers become colours ===============================


class Legend(NamedTuple):
    """The classes of a set of label maps."""

    classes: list  # numbers; for label maps of colours, 0xrrggbb
    colours: list  # "#rrggbb" of each
    names: list  # of each, or ""
    present: dict  # of each label map's name, the set of classes in it
    is_colours: bool
    by_number: bool  # whether numbers count where a map has numbers and colours

    def paint(self, path, size):
        """Reads a label map in the classes' colours, (height, width, 3) uint8."""
        codes, is_colours = common.read_label_map(path, size, self.by_number)
        if is_colours and not self.is_colours:  # numbers in three equal channels
            codes %= 256
        return common.paint(codes, self.classes, self.colours)


def make_legend(paths, palette, left_out):
    """Finds the classes of label maps, and gives each its colour.

    Args:
        paths: {name: path} of the label maps.
        palette: {class number: ("#rrggbb", name)}, as far as it is known.

    Raises:
        UserError: some have class numbers and some colours, or none can be used.
    """
    present, kinds = {}, {}  # kinds: one file for each
    found = common.in_threads(lambda path: find_classes(path, bool(palette)), paths.values())
    for (name, path), (classes, is_colours, problem) in zip(paths.items(), found):
        if problem:
            left_out.add(path, problem)
        else:
            present[name] = classes
            kinds.setdefault(is_colours, path)
    if len(kinds) > 1:
        cure = "give --labels a CSV file with class,colour,name, or make them of one kind"
        raise UserError(f"--labels: {kinds[False]} has class numbers, {kinds[True]} has colours: {cure}")
    classes = sorted(set().union(*present.values()))
    if not 0 < len(classes) <= MOST_CLASSES:
        left_out.tell("0 pairs made")
        count = f"{len(classes)} classes in {len(present)} label maps"
        raise UserError(f"--labels: {count} that can be used; from 1 to {MOST_CLASSES} can be")
    is_colours = True in kinds
    if is_colours and all(code == code % 256 * 0x010101 for code in classes):
        is_colours = False  # no colours, but numbers, in pictures of three equal channels
        present = {name: {code % 256 for code in codes} for name, codes in present.items()}
        classes = [code % 256 for code in classes]
    if is_colours:
        colours = [f"#{code:06x}" for code in classes]
        known = dict(palette.values())
        names = [known.get(colour, "") for colour in colours]
    else:
        given, names = zip(*(palette.get(number, ("", "")) for number in classes))
        others = iter(far_colours(given.count(""), [colour for colour in given if colour]))
        colours = [colour or next(others) for colour in given]
    return Legend(classes, colours, list(names), present, is_colours, bool(palette))


def find_classes(path, by_number):
    """Returns the set of classes in a label map, whether they are colours, and what is wrong with it."""
    try:
        with common.opening_labels(path, by_number) as labels:
            if labels.mode == "I":
                numbers = tf.unique(tf.reshape(common.to_tensor(labels), [-1])).y
                codes = [int(number) for number in numbers[: MOST_CLASSES + 1]]
            else:
                found = labels.getcolors(MOST_CLASSES)  # None if there are more
                codes = range(MOST_CLASSES + 1) if found is None else [code for _, code in found]
            is_colours = labels.mode == "RGB"
    except UnreadableError as error:
        return set(), False, error.problem
    if len(codes) > MOST_CLASSES:
        return set(), False, f"more than {MOST_CLASSES} colours: a photograph, or labels saved as JPEG"
    if is_colours:
        codes = [red * 65536 + green * 256 + blue for red, green, blue in codes]
    return set(codes), is_colours, ""


def far_colours(count, taken=()):
    """Returns so many colours "#rrggbb", each as far as can be from all before it; black is the first.

    Args:
        taken: colours that are there already.
    """
    steps = range(0, 256, 51)
    grid = [(red, green, blue) for red in steps for green in steps for blue in steps]
    chosen, nearest = [], dict.fromkeys(grid, float("inf"))  # squared distance to the nearest one taken

    def take(colour):
        for other in grid:
            nearest[other] = min(nearest[other], sum((a - b) ** 2 for a, b in zip(colour, other)))

    for colour in taken:
        take(tuple(bytes.fromhex(colour[1:])))
    for _ in range(min(count, len(grid))):
        chosen.append(max(grid, key=nearest.get))
        take(chosen[-1])
    chosen += [(n, 25, 25) for n in range(count - len(grid))]  # of 256 classes the last 40
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in chosen]


def read_palette(file):
    """Reads a palette: a CSV file with the columns class, colour (#rrggbb) and name, as labels.csv.

    Returns:
        {class number: ("#rrggbb", name)}.
    """
    palette = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for row in csv.DictReader(lines):
                colour = row["colour"].strip().lower()
                if len(colour) != 7 or colour[0] != "#":
                    raise ValueError(f"colour {colour}: not of the form #rrggbb")
                bytes.fromhex(colour[1:])
                palette[int(row["class"])] = colour, (row.get("name") or "").strip()
    except (ValueError, KeyError, AttributeError, csv.Error) as error:
        problem = f"no column {error}" if isinstance(error, KeyError) else error
        raise UserError(
            f"--labels {file}: a CSV file with class,colour,name is needed ({problem})"
        ) from error
    if not palette:
        raise UserError(f"--labels {file}: no class in it; a CSV file with class,colour,name is needed")
    return palette


def write_legend(legend, written, folder, about):
    """Writes labels.csv and labels.png, puts the colours into dataset.json, and prints the table.

    Args:
        written: the names of the label maps that were used.
    """
    rows = []
    for number, (code, colour, name) in enumerate(zip(legend.classes, legend.colours, legend.names)):
        pictures = sum(code in legend.present[name] for name in written)
        rows.append([number if legend.is_colours else code, colour, name, pictures])
    about |= {"condition": "labels", "colours": [row[1:3] for row in rows]}
    if not legend.is_colours:
        about["classes"] = [row[0] for row in rows]
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["class", "colour", "name", "pictures"], *rows])
    print(f"\n{'class':>8}  {'colour':8}  {'pictures':>8}  name")
    for number, colour, name, pictures in rows:
        print(f"{number:8}  {colour:8}  {pictures:8}  {common.printable(name)}")
    figure = Figure((4.0, 0.3 * len(rows) + 0.2), layout="constrained")
    axis = figure.subplots()
    axis.barh(range(len(rows)), 1.0, color=[row[1] for row in rows], edgecolor="0.5")
    axis.set_yticks(range(len(rows)), [f"{number} {name}".rstrip() for number, _, name, _ in rows])
    axis.set(xticks=[], xlim=(0.0, 1.0), ylim=(len(rows) - 0.4, -0.6))
    common.save_figure(figure, folder / "labels.png")


# === Command line ===========================================================


def get_pairs(args):
    """Makes the dataset that the flags ask for, and returns its folder."""
    name = "cityscapes" if args.import_cityscapes else args.download
    if not args.out and not name:
        raise UserError("--out: name the folder of the new dataset, e.g. --out data/mine")
    out = args.out or HERE / "data" / name
    if args.download and (out / "train").is_dir():
        print(f"{out} is already there; remove it to download it again.")
        return out
    if args.download:
        download_dataset(args.download, args.url or URL.format(name=args.download), out)
        return out
    common.return_memory()
    left_out = common.LeftOut()
    direction = "BtoA" if args.import_cityscapes else "AtoB"
    about = {"direction": direction, "condition": "sketch", "origin": shlex.join(sys.argv[1:])}
    with new_dataset(out, about) as folder:
        if args.import_cityscapes:
            made = import_cityscapes(args, folder, about, left_out)
        elif args.pair:
            made = join_folders(args, folder, about, left_out)
        else:
            made = sketch_folder(args, folder, left_out)
    left_out.tell(f"{made} pairs made")
    return out


def print_summary(out, dataset, size):
    """Prints what is in the dataset `out`, and what to do with it, where `dataset` names it."""
    about = common.describe_dataset(out)
    splits = [split for split in ("train", "val", "test") if (out / split).is_dir()]
    counts = ", ".join(f"{len(common.list_pictures(out / split))} in {split}" for split in splits)
    condition, target = ("left", "right") if about["direction"] == "AtoB" else ("right", "left")
    dataset, run = shlex.quote(str(dataset)), shlex.quote(f"runs/{out.name}")
    if size != common.IMAGE_SIZE:
        dataset += f" --size {common.size_text(size)}"
    print(
        f"\nDataset: {out}\n"
        f"Pairs: {counts}\n"
        f"Direction: {about['direction']}: condition = {condition} half, target = {target} half\n"
        f"Conditions: {about.get('condition', 'not described')} (dataset.json says so)\n"
        "\nLook at it, then train on it:\n"
        f"    python 03_pix2pix_data.py --dataset {dataset}\n"
        f"    python 05_pix2pix_train.py --dataset {dataset} --out {run}"
    )


def main():
    parser = common.Parser(__doc__)
    add = parser.first.add_mutually_exclusive_group(required=True).add_argument
    path = {"type": common.file_path}
    add("--download", choices=list(DATASETS), help="a dataset of the paper")
    add("--pair", nargs=2, metavar=("CONDITIONS", "TARGETS"), help="join two folders by name", **path)
    add("--edges", metavar="PHOTOGRAPHS", help="draw sketches of a folder of photographs", **path)
    add("--import-cityscapes", metavar="DIR", help="with leftImg8bit/ and gtFine/ in it", **path)
    add = parser.first.add_argument
    add("--out", metavar="DIR", help="folder of the new dataset (data/NAME, where it has a name)", **path)
    add = parser.others.add_argument
    add("--url", metavar="URL|FILE", help="with --download: a mirror, or an archive on this machine")
    help_text = "with --pair: CONDITIONS are label maps; a labels.csv gives their colours and names"
    add("--labels", nargs="?", const=False, metavar="CSV", help=help_text, **path)
    add("--val-share", type=common.number(0, 1), help="with --pair, --edges: part in val (0.2)")
    add("--seed", type=common.number(0, 2**31 - 1, int), help="with --pair, --edges: random seed (0)")
    common.add_size(parser, "keep enough to train at this --size; not with --download (256x256)")
    args = parser.parse_args()
    if args.url and not args.download:
        raise UserError("--url: goes with --download only")
    if args.download and args.size != common.IMAGE_SIZE:
        raise UserError("--size: not with --download, whose pictures are what they are")
    if args.labels is not None and not args.pair:
        raise UserError("--labels: goes with --pair only")
    for flag, value in {"--val-share": args.val_share, "--seed": args.seed}.items():
        if value is not None and not (args.pair or args.edges):
            raise UserError(f"{flag}: goes with --pair and --edges only")
    out = get_pairs(args)
    print_summary(out, args.out or out.name, args.size)


if __name__ == "__main__":
    common.run_main(main)
