"""Stage 7: get pairs to train on: those of the paper, or pairs of your own.

A dataset is a folder with train/ and val/ in it, full of side-by-side pictures (see stage
3). This script makes one in one of four ways:

    python 07_get_pairs.py --download facades
    python 07_get_pairs.py --pair sketches photos --out data/mine
    python 07_get_pairs.py --edges photos --out data/mine
    python 07_get_pairs.py --import-cityscapes DIR

--download fetches a dataset of Isola et al. 2017 (appendix 6.2) to data/NAME; run again
after an interruption, it goes on where it stopped. --pair joins the pictures of two
folders that have the same name, the condition on the left. --edges makes a sketch of each
photograph, so that a network can learn to go from the sketch to the photograph.
--import-cityscapes takes the pictures that you got from cityscapes-dataset.com under your
own licence. The dataset appears under its name only when it is complete and each picture
in it could be decoded. The last lines name the next two commands.

Takes a few seconds for some hundred pictures; a download, as long as the network takes.
"""

import contextlib
import errno
import functools
import gzip
import http.client
import os
import random
import shlex
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath

import common
from common import HERE, IMAGE_SIZE, UserError, decode_picture

import keras
import tensorflow as tf

# The datasets of the paper: the direction of the usual task, and how many pairs each split
# has, where that is known.
URL = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/{name}.tar.gz"
DATASETS = {
    "facades": ("BtoA", {"train": 400, "val": 100, "test": 106}),  # labels -> photograph
    "cityscapes": ("BtoA", {"train": 2975, "val": 500}),  # labels -> photograph
    "maps": ("BtoA", {"train": 1096, "val": 1098}),  # map -> aerial photograph
    "edges2shoes": ("AtoB", {}),
    "edges2handbags": ("AtoB", {}),
    "night2day": ("BtoA", {}),  # day -> night
}
TRIES = 5  # requests in a row that bring nothing, before a download is given up
BACK_OFF = 1.0  # seconds to wait after the first of them; twice as long after each further one
TIMEOUT = 60.0  # seconds without a byte, before a request is given up
CHUNK = 2**18  # bytes to read at once


@contextlib.contextmanager
def new_dataset(out, direction):
    """Gives an empty folder to fill, which becomes `out` when the block ends without an error.

    Until then it is in a temporary folder beside `out`, which this process alone may use. One
    that a killed process has left there is used again.

    Args:
        out: path of the dataset, which must not exist yet.
        direction: of its usual task, to be kept with it.

    Raises:
        UserError: `out` exists, or another process is making it.
    """
    refuse_existing(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".new.{out.name}")
    temporary.mkdir(exist_ok=True)
    common.lock(temporary)
    folder = temporary / "dataset"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        refuse_existing(out)  # another process may have made it a moment ago
        folder.mkdir()
        yield folder
        (folder / "direction.txt").write_text(direction + "\n")
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)  # last, since the lock is in it


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
    direction, known_counts = DATASETS[name]
    is_address = "://" in source
    with new_dataset(out, direction) as folder:
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
    with file.open("ab") as output:
        try:
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
            if not output.tell():
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
            path.rename(folder / path.name)
        inner[0].rmdir()


def unpack_member(tar, member, folder):
    """Writes a file, or makes a folder, of an archive; raises UserError for anything else.

    No link is ever made, so a path without .. stays within `folder`.
    """
    path = PurePosixPath(member.name)
    outside = path.is_absolute() or ".." in path.parts or len(path.parts) > 10
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


def pictures_by_name(flag, folder):
    """Returns {name without extension: path} of the pictures in a folder.

    Raises UserError if there is none, or one cannot be decoded, or two have the same name.
    """
    if not folder.is_dir():
        raise UserError(f"{flag} {folder}: no such folder")
    paths = common.list_pictures(folder)
    if not paths:
        raise UserError(f"{flag} {folder}: no .jpg, .jpeg or .png in it")
    common.refuse_unreadable(f"{flag} {folder}", common.find_unreadable(paths))
    repeated = [name for name, count in Counter(Path(path).stem for path in paths).items() if count > 1]
    if repeated:
        raise UserError(f"{folder}: more than one file is named {', '.join(repeated)}; keep one of each")
    return {Path(path).stem: path for path in paths}


def write_pairs(folder, names, make):
    """Writes one split of a dataset.

    Args:
        names: what its files are to be called, without the extension.
        make: function that returns the left and the right half of the pair of such a name,
            both (height, width, 3) uint8.

    Raises:
        UserError: names the pairs whose halves are not of one size.
    """
    folder.mkdir()

    def write(name):
        left, right = make(name)
        if left.shape != right.shape:
            sizes = ", ".join(f"{half.shape[1]}x{half.shape[0]}" for half in (left, right))
            return f"{name} ({sizes})"
        tf.io.write_file(str(folder / f"{name}.png"), tf.io.encode_png(tf.concat([left, right], axis=1)))
        return None

    unequal = [problem for problem in common.in_threads(write, sorted(names)) if problem]
    if unequal:
        raise UserError(f"the two halves must have one size; they have not in {', '.join(unequal)}")


def write_splits(folder, names, make, val_share, seed):
    """Writes train/ and val/ in `folder`; the seed decides which pairs are in val/.

    Args:
        names, make: as for `write_pairs`, but for all pairs.
        val_share: how many of them are to be in val/, from 0 to 1.

    Raises:
        UserError: one of the two would be empty.
    """
    count = round(val_share * len(names))
    if not 0 < count < len(names):
        raise UserError(f"--val-share {val_share:g}: {count} of {len(names)} pairs would be in val")
    val = random.Random(seed).sample(sorted(names), count)
    write_pairs(folder / "val", val, make)
    write_pairs(folder / "train", set(names) - set(val), make)


def warn_of_unmatched(paths, others, other_folder):
    """Warns of the files in {name: path} that have no partner among the others."""
    unmatched = [paths[name] for name in sorted(paths.keys() - others.keys())]
    if unmatched:
        common.warn(f"left out, without a partner in {other_folder}: {', '.join(unmatched)}")


def join_folders(conditions, targets, folder, val_share, seed):
    """Joins the pictures of two folders that have the same name, the condition on the left."""
    left, right = pictures_by_name("--pair", conditions), pictures_by_name("--pair", targets)
    warn_of_unmatched(left, right, targets)
    warn_of_unmatched(right, left, conditions)
    names = left.keys() & right.keys()
    if not names:
        raise UserError(f"--pair: no file in {conditions} has the name of one in {targets}")

    def make(name):
        return decode_picture(left[name]), decode_picture(right[name])

    write_splits(folder, names, make, val_share, seed)


def read_resized(path, method="bilinear"):
    """Reads a picture as (256, 256, 3) uint8."""
    picture = tf.image.resize(decode_picture(path), (IMAGE_SIZE, IMAGE_SIZE), method, antialias=True)
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


def sketch_folder(photographs, folder, val_share, seed):
    """Makes pairs of a folder of photographs: edges on the left, the photograph on the right."""
    paths = pictures_by_name("--edges", photographs)

    def make(name):
        picture = read_resized(paths[name])
        return draw_edges(picture), picture

    write_splits(folder, paths, make, val_share, seed)


def import_cityscapes(source, folder):
    """Pairs the street photographs of Cityscapes (left) with their coloured label maps (right).

    Args:
        source: the folder that holds leftImg8bit/ and gtFine/ of cityscapes-dataset.com.
    """
    pairs = {}  # of each split: {name: (photograph, label map)}
    for split in ("train", "val"):
        photos = source.glob(f"leftImg8bit/{split}/*/*_leftImg8bit.png")
        labels = source.glob(f"gtFine/{split}/*/*_gtFine_color.png")
        photos = {path.name.removesuffix("_leftImg8bit.png"): str(path) for path in photos}
        labels = {path.name.removesuffix("_gtFine_color.png"): str(path) for path in labels}
        warn_of_unmatched(photos, labels, source / "gtFine" / split)
        warn_of_unmatched(labels, photos, source / "leftImg8bit" / split)
        names = sorted(photos.keys() & labels.keys())
        pairs[split] = {name: (photos[name], labels[name]) for name in names}
        if not pairs[split]:
            wanted = f"leftImg8bit/{split}/CITY/*.png with a gtFine/{split}/CITY/*_color.png"
            raise UserError(f"--import-cityscapes {source}: no {wanted}")
    paths = [path for halves in pairs.values() for pair in halves.values() for path in pair]
    common.refuse_unreadable(f"--import-cityscapes {source}", common.find_unreadable(paths))

    def make(split, name):
        photo, labels = pairs[split][name]
        return read_resized(photo), read_resized(labels, "nearest")  # a mixed colour would be no class

    for split, names in pairs.items():
        write_pairs(folder / split, names, functools.partial(make, split))


# === Command line ===========================================================


def get_pairs(args):
    """Makes the dataset that the flags ask for, and returns its folder."""
    name = "cityscapes" if args.import_cityscapes else args.download
    if not args.out and not name:
        raise UserError("--out: name the folder of the new dataset, e.g. --out data/mine")
    out = args.out or HERE / "data" / name
    if args.download and (out / "train").is_dir():
        print(f"{out} is already there; remove it to download it again.")
    elif args.download:
        download_dataset(args.download, args.url or URL.format(name=args.download), out)
    elif args.import_cityscapes:
        with new_dataset(out, "BtoA") as folder:
            import_cityscapes(args.import_cityscapes, folder)
    else:
        with new_dataset(out, "AtoB") as folder:
            if args.pair:
                join_folders(*args.pair, folder, args.val_share, args.seed)
            else:
                sketch_folder(args.edges, folder, args.val_share, args.seed)
    return out


def print_summary(out, dataset):
    """Prints what is in the dataset `out`, and what to do with it, where `dataset` names it."""
    direction = common.usual_direction(out)
    splits = [split for split in ("train", "val", "test") if (out / split).is_dir()]
    counts = ", ".join(f"{len(common.list_pictures(out / split))} in {split}" for split in splits)
    condition, target = ("left", "right") if direction == "AtoB" else ("right", "left")
    dataset, run = shlex.quote(str(dataset)), shlex.quote(f"runs/{out.name}")
    print(
        f"\nDataset: {out}\n"
        f"Pairs: {counts}\n"
        f"Direction: {direction}: condition = {condition} half, target = {target} half\n"
        "\nLook at it, then train on it:\n"
        f"    python 03_pix2pix_data.py --dataset {dataset}\n"
        f"    python 05_pix2pix_train.py --dataset {dataset} --out {run}"
    )


def main():
    parser = common.new_parser(__doc__)
    add = parser.add_mutually_exclusive_group(required=True).add_argument
    path = {"type": common.file_path}
    add("--download", choices=list(DATASETS), help="a dataset of the paper")
    add("--pair", nargs=2, metavar=("CONDITIONS", "TARGETS"), help="join two folders by name", **path)
    add("--edges", metavar="PHOTOGRAPHS", help="draw sketches of a folder of photographs", **path)
    add("--import-cityscapes", metavar="DIR", help="with leftImg8bit/ and gtFine/ in it", **path)
    add = parser.add_argument
    add("--out", metavar="DIR", help="folder of the new dataset (data/NAME, where it has a name)", **path)
    add("--url", metavar="URL|FILE", help="with --download: a mirror, or an archive on this machine")
    add("--val-share", type=common.number(0, 1), help="with --pair, --edges: part in val (0.2)")
    add("--seed", type=common.number(0, 2**31 - 1, int), help="with --pair, --edges: random seed (0)")
    args = parser.parse_args()
    if args.url and not args.download:
        raise UserError("--url: goes with --download only")
    for flag, value in {"--val-share": args.val_share, "--seed": args.seed}.items():
        if value is not None and not (args.pair or args.edges):
            raise UserError(f"{flag}: goes with --pair and --edges only")
    if args.val_share is None:
        args.val_share = 0.2
    if args.seed is None:
        args.seed = 0
    out = get_pairs(args)
    print_summary(out, args.out or out.name)


if __name__ == "__main__":
    common.run_main(main)
