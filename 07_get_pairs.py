"""Stage 7: get pairs to train on: those of the paper, or pairs of your own.

A dataset is a folder with train/ and val/ in it, full of side-by-side pictures (see stage
3). This script makes one:

    python 07_get_pairs.py --download facades
    python 07_get_pairs.py --pair sketches photos --out data/mine
    python 07_get_pairs.py --pair "scenes/*/depth/*.png" "scenes/*/color/*.jpg" --out data/mine
    python 07_get_pairs.py --pair "all/*_A.png" "all/*_B.png" --out data/mine
    python 07_get_pairs.py --pair maps photos --labels palette.csv --out data/mine
    python 07_get_pairs.py --edges photos --out data/mine
    python 07_get_pairs.py --import-cityscapes DIR

--download fetches a dataset of Isola et al. 2017 (appendix 6.2) to data/NAME; run again
after an interruption, it continues. --pair joins conditions (first) and targets of equal
names: the path in a folder without the extension, or what the stars of a pattern stand for
(in quotes; ** is any folders; case does not matter). One folder alone has side-by-side
pictures of any kind. With --labels the conditions are label maps: class numbers get colours,
and with a palette (CSV: class,colour,name) each pixel the nearest one. --edges draws a
sketch of each photograph. --import-cityscapes takes what cityscapes-dataset.com gave you.

Folders, or names, that begin with train, val or test keep their split; else --val-share of
the pairs, at random, become val/. Any picture that Pillow reads is taken, upright, reduced
to what stage 5 can use at its --size (give the same here); the smaller half is enlarged.
Values of more than 8 bits share one range for all files of a side, kept in dataset.json.
What cannot be used is named. The last lines name the next two commands.
"""

import contextlib
import csv
import errno
import http.client
import itertools
import json
import os
import random
import re
import shlex
import shutil
import sys
import tarfile
import unicodedata
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from typing import NamedTuple

import common
from common import HERE, SPLIT, UnreadableError, UserError, read_picture

import keras
import tensorflow as tf
from PIL import Image

URL = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/{name}.tar.gz"
DATASETS = {  # of the paper: how many pairs each split has, where that is known
    "facades": {"train": 400, "val": 100, "test": 106},
    "cityscapes": {"train": 2975, "val": 500},
    "maps": {"train": 1096, "val": 1098},
    **{"edges2shoes": {}, "edges2handbags": {}, "night2day": {}},
}
MOST_CLASSES = 256  # of label maps; a file with more colours is a photograph, or a JPEG


@contextlib.contextmanager
def new_dataset(out, about):
    """Gives an empty folder, which becomes `out` when the block ends without an error.

    `about` is for dataset.json (see `common.describe_dataset`); the block may add to it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".new.{out.name}")
    temporary.mkdir(exist_ok=True)
    lock = common.lock(temporary)
    folder = temporary / "dataset"
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    try:
        if out.exists():
            raise UserError(f"{out}: already exists; remove it first, or give another --out")
        folder.mkdir()
        yield folder
        text = json.dumps(about, indent=2, ensure_ascii=False)
        (folder / "dataset.json").write_text(text + "\n", encoding="utf-8")
        folder.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # with the lock in it, so before its end
        os.close(lock)


# === The paper's datasets: download and unpack ==============================


def download_dataset(name, source, out):
    """Fetches one of DATASETS from an address, or a file, and unpacks it as `out`."""
    about = common.PAPER[name] | {"origin": f"--download {name}, {source}"}
    is_address = "://" in source
    archive = out.with_name(f".{out.name}.tar.gz.part") if is_address else Path(source)
    with new_dataset(out, about) as folder:
        if is_address:
            fetch(source, archive)
        try:
            unpack(archive, folder)
            pairs = common.find_pairs(folder)
            paths = sum(pairs.values(), [])
            common.check_headers("the archive", paths)
            common.in_threads(lambda path: len(read_picture(path)), paths)  # decodes them all
        except UserError as error:
            if is_address:
                archive.unlink()  # the next try has to start over
            raise UserError(f"{source}: {error}") from error
    if is_address:
        archive.unlink()
    for split, known in DATASETS[name].items():
        if (count := len(pairs.get(split, []))) != known:
            common.warn(f"{name} has {count} pairs in {split}, but is known to have {known}")


def fetch(url, file):
    """Downloads `url` to `file`, which may hold the first bytes of it from an earlier try."""
    print(f"Fetching {common.printable(url)}", flush=True)
    start = file.stat().st_size if file.exists() else 0
    cure = "run the same command again to continue, or give a mirror with --url"
    try:
        asked = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
        with urllib.request.urlopen(asked, timeout=60.0) as response:
            if response.headers.get_content_type() == "text/html":
                raise UserError(f"{url}: the server sends a web page, not an archive; {cure}")
            start = start if response.status == 206 else 0  # else it sends all of it again
            length = response.headers.get("Content-Length")
            total = start + int(length) if length else None
            bar = keras.utils.Progbar(total and 1 + total // 10**6, unit_name="MB")
            with file.open("ab" if start else "wb") as output:
                while chunk := response.read1(2**18):
                    output.write(chunk)
                    if sys.stdout.isatty():
                        bar.update(output.tell() // 10**6)
                if total and output.tell() != total:
                    raise UserError(f"{url}: {output.tell()} of {total} bytes came; {cure}")
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{start}":
            return  # the earlier try fetched all of it
        if error.code == 416:
            file.unlink()  # it is the beginning of something else
        raise UserError(f"{url}: {error.code} {error.reason}; {cure}") from error
    except (urllib.error.URLError, OSError, ValueError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        problem = getattr(error, "reason", error) or type(error).__name__
        raise UserError(f"{url}: {problem}; {cure}") from error


def unpack(archive, folder):
    """Unpacks a .tar.gz with train/ in it, or in its one folder, so that `folder` holds train/."""
    if not archive.is_file():
        raise UserError("no such file")
    try:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(folder, filter="data")  # refuses what would lie outside of the folder
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"damaged, or not a .tar.gz of pictures ({error})") from error
    inner = [path for path in folder.iterdir() if (path / "train").is_dir()]
    if not (folder / "train").is_dir() and len(inner) == 1:
        for path in inner[0].iterdir():
            path.replace(folder / path.name)
        inner[0].rmdir()


# === Pictures of your own: found by folder or pattern, and named ============


class Picture(NamedTuple):
    """A picture that can be used."""

    path: Path
    name: str  # of its pair's file
    split: str  # "train", "val" or "test", or "" where its path does not say so
    size: tuple  # (width, height), upright
    extent: tuple  # (lowest, highest value) where pixels have more than 8 bits


def find_pictures(flag, pattern, left_out):
    """Returns {key: Picture}; pictures of one key belong together.

    The key is the path in a folder, or what the stars of a pattern stand for, in lower case.
    """
    parts = pattern.expanduser().parts
    fixed = next((n for n, part in enumerate(parts) if {*part} & {*"*?"}), len(parts))
    root, text = Path(*parts[:fixed]), re.escape("/".join(parts[fixed:]))
    if not root.is_dir():
        raise UserError(f"{flag} {pattern}: no such folder ({root})")
    text = re.sub(r"\\\.\\\*$", "[.][^./]+", text)  # of x.*, the extension is no part of the name
    for star, group in {"**/": "(?:(.*)/)?", "*": "([^/]*)", "?": "([^/])"}.items():
        text = text.replace(re.escape(star), group)
    fit = re.compile(f"{text}(?:/(.+))?" if text else "(.+)", re.IGNORECASE)  # or all in a folder
    places = {path: path.relative_to(root).as_posix() for path in common.walk(root, left_out)}
    fitting = {path: match for path, place in places.items() if (match := fit.fullmatch(place))}
    found = {}
    for path, scanned in zip(fitting, common.in_threads(scan, [*fitting])):
        if isinstance(scanned, UnreadableError):
            left_out.add(path, scanned.problem)
            continue
        size, remark, extent = scanned
        if remark:
            left_out.remark(path, remark)
        key, name = to_names("/".join(filter(None, fitting[path].groups())))
        split = split_of(Path(places[path]).parts[:-1])
        found.setdefault(key, []).append(Picture(path, name, split, size, extent))
    if not found:
        left_out.tell("0 pairs made")
        raise UserError(f"{flag} {pattern}: no picture that can be read")
    if same := [str(picture.path) for same in found.values() for picture in same if same[1:]]:
        raise UserError(f"{flag} {pattern}: {same[0]} and {same[1]} have one name; give a pattern")
    return {key: pictures[0] for key, pictures in found.items()}


def to_names(place):
    """Returns the key of a picture, and the name that its pair's file gets, by its place."""
    # macOS writes a letter and its accent as two characters: compose them.
    *folders, name = unicodedata.normalize("NFC", place).split("/")
    while Path(name).suffix.lower() in Image.registered_extensions():
        name = Path(name).stem  # of x.png, and of x.jpg.png, a mask of x.jpg
    splits = [SPLIT.fullmatch(folder) for folder in folders]
    key = [match[1] if match else folder for match, folder in zip(splits, folders)]
    shown = [folder for match, folder in zip(splits, folders) if not match]
    return "/".join([*key, name]).casefold(), "_".join([*shown, name])


def split_of(parts):
    """Returns the split that the last of some parts of a path says, or ""."""
    return ["", *(match[1].lower() for match in map(SPLIT.match, parts) if match)][-1]


def scan(path):
    """Returns (width, height), a remark and the extent of a picture file, or an UnreadableError."""
    try:
        (size, remark, _), extent = common.read_header(path), None
        with common.opening(path) as image:
            if image.mode[0] in "IF":
                values = common.to_tensor(image.convert("F"))
                if not bool(tf.reduce_all(tf.math.is_finite(values))):
                    raise UnreadableError(path, "holds NaN or infinity: replace them")
                extent = float(tf.reduce_min(values)), float(tf.reduce_max(values))
        return size, remark, extent
    except UnreadableError as error:
        return error


def find_range(pictures, side):
    """Returns the (low, high) that become 0 and 255 in all pictures of a side, or None."""
    extents = [picture.extent for picture in pictures if picture.extent]
    if not extents:
        return None
    low, high = min(low for low, _ in extents), max(high for _, high in extents)
    others = (
        f" but {len(pictures) - len(extents)}, which have 8 bits" if extents != pictures else ""
    )
    others = others if len(extents) < len(pictures) else ""
    print(f"Range of the {side}: {low:g} to {high:g} becomes 0 to 255 in all files{others}")
    return low, high if high > low else low + 1.0


def match_sides(patterns, left, right, left_out):
    """Returns both sides' pictures that have a partner; the others are left out."""
    keys = sorted(left.keys() & right.keys())
    if own := [left[key].path for key in keys if left[key].path == right[key].path]:
        cure = 'give patterns, e.g. "x/*_A.png" "x/*_B.png" or "x/*/depth" "x/*/color"'
        raise UserError(f"--pair: {own[0]} would be its own partner; {cure}")
    if not keys:
        raise UserError(f"--pair: no names are equal: {explain_names(patterns, left, right)}")
    for side, other, pattern in ((left, right, patterns[1]), (right, left, patterns[0])):
        for key in side.keys() - other.keys():
            left_out.add(side[key].path, f"without a partner in {pattern}")
    return [{key: side[key] for key in keys} for side in (left, right)]


def explain_names(patterns, left, right):
    """Returns two names of each side, and patterns that would fit, if cutting their ends helps."""
    shown = " and ".join(", ".join(sorted(side)[:2]) for side in (left, right))
    ends = []  # of each side: what all names begin with or nothing, end with or nothing
    for side in (left, right):
        end = os.path.commonprefix([key[::-1] for key in side])[::-1]
        ends += [["", os.path.commonprefix([*side]).rstrip("0123456789")]]
        ends += [["", end.lstrip("0123456789")]]
    for a, b, c, d in itertools.product(*ends):
        ours = {key[len(a) : len(key) - len(b)] for key in left}
        if ours & {key[len(c) : len(key) - len(d)] for key in right} - {""}:
            return f'they are {shown}; try "{patterns[0]}/{a}*{b}.*" "{patterns[1]}/{c}*{d}.*"'
    return f'they are {shown}; give patterns whose stars are equal: "a/*_x.png" "b/*.jpg"'


# === Pairs of your own: made and written ====================================


def make_pairs(args, folder, about, left_out):
    """Writes the pairs that --pair, --edges or --import-cityscapes asks for; returns how many."""
    patterns, legend = args.pair or [args.edges], None
    flag = "--edges" if args.edges else "--pair"
    sides = [find_pictures(flag, pattern, left_out) for pattern in patterns]
    names = ["pictures"]
    if len(sides) == 2:
        sides, names = match_sides(patterns, *sides, left_out), ["conditions", "targets"]
    chosen = sides[0]
    if args.labels is not None:
        legend = Legend(chosen, args.labels, left_out)
        chosen = {key: chosen[key] for key in legend.present}
    ranged = [{} if legend else sides[0], *sides[1:]]  # class numbers have no range
    spans = [find_range(side.values(), name) for side, name in zip(ranged, names)]
    halves = {"right": spans[-1]} | ({} if args.edges else {"left": spans[0]})
    about["ranges"] = {half: list(span) for half, span in halves.items() if span}
    levels = [set() for _ in sides]  # gray ones of all files of a side

    def read(n, key, size):
        picture = read_picture(sides[n][key].path, size, spans[n])
        gray = bool(tf.reduce_all(picture == picture[..., :1]))
        found = tf.unique(tf.reshape(picture[..., 0], [-1])).y if gray else range(256)
        levels[n].update(int(level) for level in found)
        return picture

    def make(key):
        if args.edges:
            picture = read(0, key, args.size[::-1])
            return draw_edges(picture), picture
        if len(sides) == 1:
            width, height = sides[0][key].size
            if width < 1.2 * height:
                left_out.remark(sides[0][key].path, "no likely pair, and cut in half")
            kept = common.kept_size((width // 2, height), args.size)
            picture = read(0, key, (2 * kept[0], kept[1]) if kept[1] < height else None)
            return picture[:, : picture.shape[1] // 2], picture[:, -(picture.shape[1] // 2) :]
        size = args.size[::-1] if args.import_cityscapes else size_of_pair(sides, key, args.size)
        target = read(1, key, size)
        return legend.paint(sides[0][key].path, size) if legend else read(0, key, size), target

    written = write_pairs(folder, chosen, make, args, left_out)
    if legend:
        legend.write(written, folder, about)
    for name, found in zip(names, levels):
        if 0 < len(found) < 16 and found - {0, 255}:
            count = f"{len(found)} gray levels, from {min(found)} to {max(found)}"
            common.warn(f"the {name} have {count}: class numbers are for conditions, with --labels")
    return len(written)


def size_of_pair(sides, key, training_size):
    """Returns (width, height) of the larger one of two Pictures, or less if that is plenty."""
    (width, height), (other_width, other_height) = sizes = [side[key].size for side in sides]
    if not 1 / 1.02 <= width * other_height / (other_width * height) <= 1.02:
        shown = f"{width}x{height}, {other_width}x{other_height}"
        problem = f"of other proportions than its partner ({shown}): crop one"
        raise UnreadableError(sides[0][key].path, problem)
    return common.kept_size(max(sizes), training_size)


def draw_edges(picture):
    """Draws dark lines on white where the brightness of (height, width, 3) uint8 changes."""
    gray = tf.image.rgb_to_grayscale(tf.cast(picture[tf.newaxis], tf.float32) / 255.0)
    for _ in range(2):  # blurred twice, so that grain does not count as edges
        padded = tf.pad(gray, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
        gray = tf.nn.avg_pool2d(padded, 3, 1, "VALID")
    strength = tf.norm(tf.image.sobel_edges(gray), axis=-1)  # (1, H, W, 1)
    ascending = tf.sort(tf.reshape(strength, [-1]))
    strong = tf.maximum(ascending[int(0.95 * len(ascending))], 0.05)  # an empty sky stays empty
    ink = tf.clip_by_value(1.5 * strength / strong - 0.5, 0.0, 1.0)
    return tf.cast(tf.round(255.0 * (1.0 - tf.repeat(ink[0], 3, axis=-1))), tf.uint8)


def given_splits(pictures, args, left_out):
    """Returns {key: split} as the pictures' paths or names say; none if they do not say all."""
    splits = {key: picture.split for key, picture in pictures.items()}
    by_name = {key: split_of([picture.name]) for key, picture in pictures.items()}
    if not any(splits.values()) and all(by_name.values()):  # train_1.png and val_1.png in a folder
        splits = by_name
    if "train" not in splits.values() or not {"val", "test"} & {*splits.values()}:
        return {}
    if (args.val_share, args.seed) != (None, None):
        raise UserError("--val-share, --seed: the pictures are in train and val already")
    for key in [key for key in splits if not splits[key]]:
        left_out.add(pictures[key].path, "in none of train, val and test, where others are")
    return {key: split for key, split in splits.items() if split}


def write_pairs(folder, pictures, make, args, left_out):
    """Writes pairs as PNG files in train/, val/ and test/; returns the keys of those written.

    make(key) returns two (height, width, 3) uint8 of one size, or raises UnreadableError.
    """
    splits, files = given_splits(pictures, args, left_out), {}
    for key, split in (splits or dict.fromkeys(pictures, "train")).items():
        file = folder / split / f"{pictures[key].name}.png"
        if (other := files.setdefault(file, key)) != key:
            paths = f"{pictures[key].path} and {pictures[other].path}"
            raise UserError(f"{paths} would have the same file, {file.name}: rename one")
        file.parent.mkdir(exist_ok=True)

    def write(file):
        try:
            if len(os.fsencode(file.name)) > 255:
                raise UnreadableError(file.name[:-4], "the name is too long: shorten it")
            pair = tf.concat(make(files[file]), axis=1)
        except UnreadableError as error:
            return error
        return tf.io.write_file(str(file), tf.io.encode_png(pair))

    errors = common.in_threads(write, [*files])
    for error in filter(None, errors):
        left_out.add(error.path, error.problem)
    written = {files[file]: file for file, error in zip(files, errors) if not error}
    problem = [
        f"no pair of {split} can be used"
        for split in {*splits.values()} - {splits.get(key) for key in written}
    ]
    if not splits:
        share = 0.2 if args.val_share is None else args.val_share
        count = round(share * len(written))
        if 0 < count < len(written):
            (folder / "val").mkdir()
            for key in random.Random(args.seed or 0).sample(sorted(written), count):
                written[key].replace(folder / "val" / written[key].name)
        else:
            problem = [f"--val-share {share:g}: {count} of {len(written)} pairs would be in val"]
    if problem:
        left_out.tell(f"{len(written)} pairs made")
        raise UserError(problem[0])
    return [*written]


# === Label maps: class numbers become colours ===============================


class Legend:
    """The classes of label maps, {key: Picture}, and their colours.

    `classes` is {number, or 0xrrggbb of maps in colours: ("#rrggbb", name)}; `present` has the
    classes of each map that can be used. `palette`: {number: ("#rrggbb", name)}, where known.
    """

    def __init__(self, maps, palette, left_out):
        self.palette, self.present, shares, numbers = palette, {}, [], {}
        paths = {key: picture.path for key, picture in maps.items()}
        found = common.in_threads(self.find_classes, [*paths.values()])
        for (key, path), result in zip(paths.items(), found):
            if isinstance(result, UnreadableError):
                left_out.add(path, result.problem)
                continue
            self.present[key], is_colours, share = result
            shares.append(share)
            numbers |= {} if is_colours else {key: path}
        self.is_colours = len(numbers) < len(self.present)
        if self.is_colours:  # then a map of one gray alone has a colour, too
            coloured = [key for key in self.present if key not in numbers]
            known = set().union(*(self.present[key] for key in coloured))
            for key, path in numbers.items():
                self.present[key] = {number * 0x010101 for number in self.present[key]}
                if not self.present[key] <= known:
                    problem = f"{path} has class numbers, {paths[coloured[0]]} has colours"
                    raise UserError(f"--labels: {problem}: make them of one kind")
        classes = sorted(set().union(*self.present.values()))
        if not 0 < len(classes) <= MOST_CLASSES:
            left_out.tell("0 pairs made")
            count = f"{len(classes)} classes in {len(self.present)} label maps"
            raise UserError(f"--labels: {count} that can be used; from 1 to {MOST_CLASSES} can be")
        if self.is_colours and palette:
            share = sum(shares) / len(shares)
            tell = common.warn if share > 0.2 else print
            tell(f"{share:.1%} of the label maps' pixels had other colours and get the nearest")
        if self.is_colours:
            names = dict(palette.values())
            palette = {code: (f"#{code:06x}", names.get(f"#{code:06x}", "")) for code in classes}
        elif palette and (unknown := [f"{number}" for number in classes if number not in palette]):
            common.warn(f"not in the palette, and given other colours: {common.listed(unknown)}")
        others = voc_colours({palette[number][0] for number in classes if number in palette})
        self.classes = {n: palette[n] if n in palette else (next(others), "") for n in classes}

    def find_classes(self, path):
        """Returns a map's classes, whether they are colours, and the share of pixels changed."""
        try:
            codes, is_colours = common.read_label_map(path, numbers=bool(self.palette))
        except UnreadableError as error:
            return error
        found, _, counts = tf.unique_with_counts(tf.reshape(codes, [-1]))
        near = self.nearest(found) if is_colours else found
        share = int(tf.reduce_sum(tf.boolean_mask(counts, near != found))) / int(tf.size(codes))
        found = tf.unique(near).y
        if len(found) > MOST_CLASSES:
            cure = (
                "a photograph, or saved as JPEG or with soft edges: give --labels a palette (CSV)"
            )
            return UnreadableError(path, f"more than {MOST_CLASSES} colours: {cure}")
        return {int(code) for code in found}, is_colours, share

    def nearest(self, codes):
        """Returns the palette's colour that is nearest to each of (N,) int32 0xrrggbb."""
        if not self.palette:
            return codes
        known = tf.constant([int(colour[1:], 16) for colour, _ in self.palette.values()])
        ours, theirs = (tf.cast(common.paint(part), tf.float32) for part in (codes, known))
        products = tf.matmul(ours, theirs, transpose_b=True)  # |a - b|^2 = |a|^2 - 2ab + |b|^2
        return tf.gather(known, tf.argmin(tf.reduce_sum(theirs**2, -1) - 2.0 * products, axis=-1))

    def paint(self, path, size):
        """Reads a label map in the classes' colours, (height, width, 3) uint8."""
        codes, is_colours = common.read_label_map(path, size, numbers=bool(self.palette))
        if not self.is_colours:
            return common.paint(
                codes, [*self.classes], [colour for colour, _ in self.classes.values()]
            )
        codes = codes if is_colours else codes * 0x010101
        found, places = tf.unique(tf.reshape(codes, [-1]))
        return common.paint(tf.reshape(tf.gather(self.nearest(found), places), codes.shape))

    def write(self, written, folder, about):
        """Writes labels.csv of the label maps used, describes them in `about`, prints the table."""
        about |= {"condition": "labels", "colours": [[*pair] for pair in self.classes.values()]}
        about |= {} if self.is_colours else {"classes": [*self.classes]}
        rows = [["class", "colour", "name", "pictures"]]
        for n, (code, (colour, name)) in enumerate(self.classes.items()):
            count = sum(code in self.present[key] for key in written)
            rows.append([n if self.is_colours else code, colour, name, count])
        with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
        for number, colour, name, count in rows:
            print(f"{number:>8}  {colour:8}  {count:>8}  {common.printable(name)}")


def voc_colours(taken):
    """Yields 512 colours "#rrggbb" as PASCAL VOC numbers its classes, without those taken."""
    for n in range(512):  # the bits of n, from the lowest: red, green, blue, red ...
        bits = [[n >> (3 * k + channel) & 1 for k in range(3)] for channel in range(3)]
        rgb = (sum(bit << (7 - k) for k, bit in enumerate(channel)) for channel in bits)
        if (colour := "#{:02x}{:02x}{:02x}".format(*rgb)) not in taken:
            yield colour


def read_palette(file):
    """Reads a CSV file with class, colour (#rrggbb) and name: {class: ("#rrggbb", name)}."""
    palette = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for row in csv.DictReader(lines):
                colour = row["colour"].strip().lower()
                if not re.fullmatch("#[0-9a-f]{6}", colour):
                    raise ValueError(f"colour {colour}: not of the form #rrggbb")
                palette[int(row["class"])] = colour, (row.get("name") or "").strip()
    except (ValueError, KeyError, AttributeError, TypeError, csv.Error) as error:
        problem = f"no column {error}" if isinstance(error, KeyError) else error
        raise UserError(f"--labels {file}: needs class,colour,name ({problem})") from error
    if not palette:
        raise UserError(f"--labels {file}: needs class,colour,name (no class in it)")
    return palette


# === Command line ===========================================================


def get_pairs(args, out):
    """Makes the dataset `out` as the flags ask for."""
    if args.download:
        url = args.url or URL.format(name=args.download)
        download_dataset(args.download, url, out)
        return
    if args.import_cityscapes:
        args.labels = HERE / "data" / "cityscapes.csv"
        ends = "gtFine/*/*/*_gtFine_color.png", "leftImg8bit/*/*/*_leftImg8bit.png"
        args.pair = [args.import_cityscapes / end for end in ends]
    if args.labels is not None:
        args.labels = read_palette(args.labels) if args.labels else {}
    left_out = common.LeftOut()
    about = {"direction": "AtoB", "origin": shlex.join(sys.argv[1:])}
    about |= {"condition": "sketch"} if args.edges else {}
    with new_dataset(out, about) as folder:
        made = make_pairs(args, folder, about, left_out)
    left_out.tell(f"{made} pairs made")


def print_summary(out, dataset, size):
    """Prints what is in the dataset `out`, and what to do with it, where `dataset` names it."""
    about, pairs = common.describe_dataset(out), common.find_pairs(out)
    counts = ", ".join(f"{len(paths)} in {split}" for split, paths in pairs.items())
    condition, target = ("left", "right") if about["direction"] == "AtoB" else ("right", "left")
    flags, run = f"--dataset {shlex.quote(str(dataset))}", shlex.quote(f"runs/{out.name}")
    flags += " --size {}x{}".format(*size) if size != common.IMAGE_SIZE else ""
    print(
        f"\nDataset: {out}\n"
        f"Pairs: {counts}\n"
        f"Direction: {about['direction']}: condition = {condition} half, target = {target} half\n"
        f"Conditions: {about.get('condition', 'stage 5 looks at some')}\n"
        "\nLook at it, then train on it:\n"
        f"    python 03_pix2pix_data.py {flags}\n"
        f"    python 05_pix2pix_train.py {flags} --out {run}"
    )


def parse_flags(argv):
    """Returns the parsed flags."""
    parser, path = common.parser_of(__doc__), {"type": Path}
    add = parser.add_mutually_exclusive_group(required=True).add_argument
    add("--download", choices=[*DATASETS], help="a dataset of the paper")
    help_text = "conditions and targets: folders, or patterns in quotes; or one folder of pairs"
    add("--pair", nargs="+", metavar="PATTERN", help=help_text, **path)
    add("--edges", metavar="PATTERN", help="draw sketches of photographs", **path)
    add("--import-cityscapes", metavar="DIR", help="with leftImg8bit/ and gtFine/ in it", **path)
    add, seeds = parser.add_argument, common.number(0, 2**31 - 1, int)
    add("--out", metavar="DIR", help="folder of the new dataset", **path)
    add("--url", metavar="URL|FILE", help="with --download: a mirror, or a file of your own")
    help_text = "with --pair: conditions are label maps; CSV: their classes, colours and names"
    add("--labels", nargs="?", const=False, metavar="CSV", help=help_text, **path)
    add("--val-share", type=common.number(0, 1), help="share of the pairs for val/ (0.2)")
    add("--seed", type=seeds, help="random seed of the choice for val/ (0)")
    common.add_size(parser, "size of training, to keep enough pixels for it (256x256)")
    args = parser.parse_args(argv)
    count, own = len(args.pair or []), args.pair or args.edges
    chosen = (args.val_share, args.seed) != (None, None)
    problems = {
        "--url: goes with --download only": args.url and not args.download,
        "--size: not with --download": args.download and args.size != common.IMAGE_SIZE,
        "--labels: goes with two folders of --pair": args.labels is not None and count != 2,
        "--pair: takes one or two; put patterns in quotes": count > 2,
        "--val-share, --seed: go with --pair and --edges": chosen and not own,
        "--out: name the folder of the new dataset, e.g. --out data/mine": own and not args.out,
    }
    for problem in (problem for problem, given in problems.items() if given):
        raise UserError(problem)
    return args


def main(argv=None):
    args = parse_flags(argv)
    name = "cityscapes" if args.import_cityscapes else args.download
    out = args.out or HERE / "data" / name
    if args.download and (out / "train").is_dir():
        print(f"{out} is already there; remove it to download it again.")
    else:
        get_pairs(args, out)
    print_summary(out, args.out or name, args.size)


if __name__ == "__main__":
    common.run_main(main)
