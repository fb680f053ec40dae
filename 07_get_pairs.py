"""Stage 7: get pairs to train on: those of the paper, or pairs of your own.

A dataset is a folder with train/ and val/, full of side-by-side pictures (see stage 3). Make one:

    python 07_get_pairs.py --download facades
    python 07_get_pairs.py --pair sketches photos --out data/mine
    python 07_get_pairs.py --pair "scenes/*/depth/*.png" "scenes/*/color/*.jpg" --out data/mine
    python 07_get_pairs.py --pair "all/*_A.png" "all/*_B.png" --out data/mine
    python 07_get_pairs.py --pair maps photos --labels palette.csv --out data/mine
    python 07_get_pairs.py --edges photos --out data/mine

--download fetches a dataset of Isola et al. 2017 (appendix 6.2) or continues an earlier try. --pair
joins conditions (first) and targets of the same name: the path in a folder, without extension, or
what the stars of a pattern match (in quotes; ** matches any folders; case does not matter). One
folder alone must hold side-by-side pictures. --edges draws a sketch of each photograph. --labels
is for label maps: numbers get colours, and colours become the nearest ones of a palette (CSV).

Pairs whose folders or names begin with train, val or test keep that split. Otherwise --val-share of
the pairs, chosen at random, goes to val/. Pictures may have any format that Pillow reads. They are
turned upright and reduced to what stage 5 needs at its --size (give the same here). The smaller
half is enlarged. A side's files share one value range (dataset.json). Unusable files are named.
"""

import contextlib
import csv
import gzip
import json
import os
import random
import re
import shlex
import shutil
import sys
import tarfile
import unicodedata
import urllib.request
import zlib
from collections import defaultdict
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import common
from common import HERE, SPLIT, UnreadableError, UserError, read_header, read_picture

import keras
import tensorflow as tf
from PIL import Image

URL = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/{name}.tar.gz"
MOST_CLASSES = 256  # of label maps; a file with more colours is a photograph, or a JPEG


@contextlib.contextmanager
def new_dataset(out, about):
    """Yields an empty folder; without an error it becomes `out`, with `about` as dataset.json."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".new.{out.name}")
    temporary.mkdir(exist_ok=True)
    lock = common.lock(temporary)
    folder = temporary / "dataset"
    shutil.rmtree(folder, ignore_errors=True)  # a killed process may have left it
    try:
        if out.exists():
            raise UserError(f"{out}: already exists; give another --out, or remove it first")
        folder.mkdir()
        yield folder
        text = json.dumps(about, indent=2, ensure_ascii=False)
        (folder / "dataset.json").write_text(text + "\n", encoding="utf-8")
        folder.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # holds the lock file: remove, then unlock
        os.close(lock)


# === The paper's datasets: download and unpack ==============================
def download_dataset(name, source, out):
    """Fetches a dataset of the paper from a URL, or takes a local file, and unpacks it to `out`."""
    part = out.with_name(f".{out.name}.tar.gz.part")
    archive = part if "://" in source else Path(source)
    about = common.PAPER[name] | {"origin": f"--download {name}, {source}"}
    with new_dataset(out, about) as folder:
        if archive == part:
            fetch(source, part)
        try:
            unpack(archive, folder)
            common.refuse_unusable(sum(common.find_pairs(folder).values(), []))
        except UserError as error:
            part.unlink(missing_ok=True)  # the next try has to start over
            raise UserError(f"{source}: {error}") from error
    part.unlink(missing_ok=True)


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
            start = start if response.status == 206 else 0  # else it sends the whole file
            size = start + int(response.headers.get("Content-Length", 0))
            bar = keras.utils.Progbar(size // 10**6 + 1, unit_name="MB", verbose=os.isatty(1))
            with file.open("ab" if start else "wb") as output:
                while chunk := response.read1(2**18):
                    output.write(chunk)
                    bar.update(output.tell() // 10**6)
                if output.tell() < size:
                    raise UserError(f"{url}: got {output.tell()} of {size} bytes; {cure}")
    except (OSError, ValueError, HTTPException) as error:
        if getattr(error, "code", None) == 416:  # no such range of bytes
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return  # the earlier try fetched all of it
            file.unlink()  # it is the beginning of something else
        raise UserError(f"{url}: {error}; {cure}") from error


def unpack(archive, folder):
    """Unpacks a .tar.gz that has train/ at its top or in its only folder, to `folder`/train/."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", None)  # since Python 3.11.4
            for member in (member for member in tar if not member.isdir()):
                if not member.isreg() or {"", ".."} & {*member.name.split("/")}:
                    raise tarfile.TarError(f"{member.name}: a link, or outside the folder")
                member.name = re.sub(r"^(\./)?[^/]+/(?=(train|val|test)/)", "", member.name)
                tar.extract(member, folder)
            tar.fileobj.seek(0, os.SEEK_END)  # reads on to gzip's checksum
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"damaged, or not a .tar.gz of pictures ({error})") from error


# === Pairs of your own: pictures found by folder or pattern, named, paired ===
class Picture(NamedTuple):
    """A picture that can be used."""

    path: Path
    name: str  # of its pair's file
    split: str  # "train", "val" or "test", or "" where its path does not say so
    size: tuple  # (width, height), upright
    extent: tuple  # (lowest, highest value) where pixels have more than 8 bits


def find_pictures(flag, pattern, notes):
    """Returns {key: Picture}; a key is a path in the folder or what stars match, in lower case."""
    parts = pattern.parts
    fixed = next((n for n, part in enumerate(parts) if {*part} & {*"*?"}), len(parts))
    root, text = Path(*parts[:fixed]), re.escape("/".join(parts[fixed:]))
    if not root.is_dir():
        raise UserError(f"{flag} {pattern}: no such folder ({root}), and no pattern with * or ?")
    text = re.sub(r"\\\.\\\*$", "[.][^./]+", text)  # the name in x.* excludes the extension
    for star, group in {"**/": "(?:(.*)/)?", "*": "([^/]*)", "?": "([^/])"}.items():
        text = text.replace(re.escape(star), group)
    fit = re.compile(f"{text}(?:/(.+))?" if text else "(.+)", re.I | re.S)  # or all in a folder
    places = {path: path.relative_to(root) for path in common.walk(root, notes)}
    matches = {path: fit.fullmatch(place.as_posix()) for path, place in places.items()}
    fitting, found = [path for path, match in matches.items() if match], {}
    for path, (size, remark, extent) in sift(scan, fitting, notes).items():
        notes[remark].add(path)
        stars = "/".join(filter(None, matches[path].groups()))  # may say a split: trainannot/x
        split, (key, name) = split_of((places[path].parent / stars).parts[:-1]), to_names(stars)
        name = f"_{name}" if name.startswith(".") or not name else name  # else it would be hidden
        if key in found:
            same = f"{found[key].path} and {path} have the same name"
            raise UserError(f"{flag}: {same}: rename one, or give each side a pattern of its own")
        found[key] = Picture(path, name, split, size, extent)
    if not found:
        problem = "no picture that can be read" if fitting else "fits no file; wildcards: * ? **"
        raise UserError(f"{flag} {pattern}: {problem} (of {len(places)} in {root})")
    return found


def sift(function, items, notes):
    """Returns {item: function(item)}; files that cannot be used go to `notes` instead."""
    results = dict(zip(items, common.in_threads(function, [*items])))
    for item in [item for item in items if isinstance(results[item], UnreadableError)]:
        error = results.pop(item)
        notes[f"left out, {error.problem}"].add(error.path)
    return results


def to_names(place):
    """Returns a picture's key and the name for its pair's file, both from its relative path."""
    *folders, name = unicodedata.normalize("NFC", place).split("/")  # macOS splits off accents
    while Path(name).suffix.lower() in Image.registered_extensions():
        name = Path(name).stem  # x, for x.png and x.jpg.png (a mask of x.jpg)
    splits = [SPLIT.fullmatch(folder) for folder in folders]
    key = [match[1] if match else folder for match, folder in zip(splits, folders)]
    shown = [folder for match, folder in zip(splits, folders) if not match]
    return "/".join([*key, name]).casefold(), "_".join([*shown, name])


def split_of(parts):
    """Returns the split that the last matching part of a path names, or ""."""
    return ["", *(match[1].lower() for match in map(SPLIT.match, parts) if match)][-1]


def scan(path):
    """Returns (width, height), a remark and the extent of a picture file."""
    (size, remark, _), extent = read_header(path), None
    with common.opening(path) as image:
        if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
            remark = remark or "transparent parts become white, unless they are class numbers"
        if image.mode[0] in "IF":
            values = keras.utils.img_to_array(image.convert("F"))
            low, high = extent = float(values.min()), float(values.max())
            if not abs(low) + abs(high) < float("inf"):
                raise UnreadableError(path, "holds NaN or infinity: replace them")
            inner = values[(values > low) & (values < high)]
            if len(inner) > 16 and inner.max() - inner.min() < (high - low) / 4:
                far = low if inner.min() - low > high - inner.max() else high
                remark = remark or f"{far:g} is far from all other values: replace it if no data"
    return size, remark, extent


def find_range(pictures, pattern):
    """Returns the (low, high) that become 0 and 255 in all pictures of a side, or None."""
    if not (extents := [picture.extent for picture in pictures if picture.extent]):
        return None
    low, high = min(low for low, _ in extents), max(high for _, high in extents)
    where = f"in the {len(extents)} of {len(pictures)} files that have more than 8 bits"
    print(common.printable(f"Range of {pattern}: {low:g} to {high:g} become 0 to 255 {where}"))
    return low, high if high > low else low + 1.0


def match_sides(patterns, left, right, notes):
    """Returns both sides' pictures that have a partner; the others are left out."""
    keys = sorted(left.keys() & right.keys())
    if own := [left[key].path for key in keys if left[key].path.samefile(right[key].path)]:
        raise UserError(f"--pair: {own[0]} would be its own partner; give patterns: *_A.* *_B.*")
    if not keys:
        raise UserError(f"--pair: no names are equal: {explain_names(patterns, left, right)}")
    for side, other, pattern in ((left, right, patterns[1]), (right, left, patterns[0])):
        for key in side.keys() - other.keys():
            notes[f"left out, without a partner in {pattern}"].add(side[key].path)
    return [{key: side[key] for key in keys} for side in (left, right)]


def explain_names(patterns, left, right):
    """Returns two names of each side, and patterns to try if names match without common ends."""
    shown = " and ".join(", ".join(sorted(side)[:2]) for side in (left, right))
    starts = [os.path.commonprefix([*side]).rstrip("0123456789") for side in (left, right)]
    turned = [os.path.commonprefix([key[::-1] for key in side]) for side in (left, right)]
    b, d = (end[::-1].lstrip("0123456789") for end in turned)
    star = "**/*" if any("/" in key for key in left) else "*"
    for a, c in (("", ""), starts) if all(pattern.is_dir() for pattern in patterns) else ():
        ours = {key[len(a) : len(key) - len(b)] for key in left}
        if ours & {key[len(c) : len(key) - len(d)] for key in right} - {""}:
            fit = f'"{patterns[0]}/{a}{star}{b}.*" "{patterns[1]}/{c}{star}{d}.*"'
            return f"they are {shown}; if these belong together, try {fit}"
    return f'they are {shown}; rename them, or give patterns whose stars match: "a/*_x" "b/*"'


def make_pairs(args, folder, about, notes):
    """Writes the pairs that --pair, --edges or --import-cityscapes asks for; returns how many."""
    patterns, flag = args.pair or args.edges, "--edges" if args.edges else "--pair"
    sides = [find_pictures(flag, pattern, notes) for pattern in patterns]
    sides = match_sides(patterns, *sides, notes) if len(sides) == 2 else sides
    legend = None if args.labels is None else Legend(sides[0], args.labels, notes)
    names, ranged = ["conditions", "targets"], [{} if legend else sides[0], *sides[1:]]
    spans = [find_range(side.values(), pattern) for side, pattern in zip(ranged, patterns)]
    halves = {"left": None if args.edges else spans[0], "right": spans[-1]}
    about["ranges"] = about.get("ranges", {}) | {h: [*span] for h, span in halves.items() if span}
    levels = {n: [] for n in ([-1] if legend or args.edges else [0, -1])}  # of gray in each file

    def read(n, key, size):
        return read_picture(sides[n][key].path, size, spans[n])

    def make(key):
        halves = halves_of(key)
        for n, files in levels.items():
            gray = tf.reduce_max(halves[n], axis=-1)
            few = tf.reduce_all(halves[n] == gray[..., tf.newaxis]) or tf.reduce_max(gray) < 64
            found = tf.unique(tf.reshape(gray, [-1])).y if few else range(256)
            files.append({int(level) for level in found})
            note = f"blank {names[n]}, of gray level {found[0]} (255: white or transparent)"
            notes[note if len(found) == 1 else ""].add(sides[n][key].path)
        return halves

    def halves_of(key):
        if args.edges:
            picture = read(0, key, args.size[::-1])
            return draw_edges(picture), picture
        if len(sides) == 1:
            width, height = sides[0][key].size
            if width < 1.4 * height:
                notes["probably not a pair, but split in half anyway"].add(sides[0][key].path)
            kept = common.kept_size((width // 2, height), args.size)
            whole = kept[1] == height or about.get("condition") == "labels"  # a blend is no class
            picture = read(0, key, None if whole else (2 * kept[0], kept[1]))
            return picture[:, : picture.shape[1] // 2], picture[:, -(picture.shape[1] // 2) :]
        size = args.size[::-1] if args.import_cityscapes else size_of_pair(sides, key, args.size)
        target = read(1, key, size)
        return legend.paint(sides[0][key].path, size) if legend else read(0, key, size), target

    chosen = {key: sides[0][key] for key in (legend.present if legend else sides[0])}
    written = write_pairs(folder, chosen, make, args, notes)
    if legend:
        legend.write(written, folder, about)
    for n, files in levels.items():
        seen, counts = set().union(*files), sorted(len(found - {0, 255}) for found in files)
        if seen - {0, 255} and (0 < counts[len(counts) // 2] < 16 or max(seen - {255}) < 64):
            few = f"{len(seen)} gray levels, from {min(seen)} to {max(seen)}: brighten them, or for"
            common.warn(f"the {names[n]} have {few} class numbers use --labels, their folder first")
    return len(written)


def size_of_pair(sides, key, training_size):
    """Returns the `kept_size` (width, height) of the larger of two Pictures."""
    (w, h), (w2, h2) = sizes = [side[key].size for side in sides]
    if not 1 / 1.02 <= w * h2 / (w2 * h) <= 1.02:
        problem = f"proportions differ from its partner's ({w}x{h}, {w2}x{h2}): crop or turn one"
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


def given_splits(pictures, args, notes):
    """Returns {key: split} from the pictures' paths or names; {} if they do not name two splits."""
    splits = {key: picture.split for key, picture in pictures.items()}
    by_name = {key: split_of([picture.name]) for key, picture in pictures.items()}
    if not any(splits.values()) and len([*filter(None, by_name.values())]) > len(splits) / 2:
        splits = by_name  # train_1.png and val_1.png in a folder
    if "train" not in splits.values() or not {"val", "test"} & {*splits.values()}:
        paths = " ".join(f"{p.split} {p.name}" for p in pictures.values()).lower()
        said = re.findall(rf"(?<![a-z]){SPLIT.pattern}", paths)
        if len(said) > len(pictures) / 4:
            words = " and ".join(sorted(dict(said)))
            common.warn(f"too few paths say {words}, or they say only one split: all are shuffled")
        return {}
    if (args.val_share, args.seed) != (None, None):
        raise UserError("--val-share, --seed: the pictures are in train and val already")
    for key in [key for key in splits if not splits[key]]:
        notes["left out, not in train, val or test, as others are"].add(pictures[key].path)
    return {key: split for key, split in splits.items() if split}


def write_pairs(folder, pictures, make, args, notes):
    """Writes each make(key), two halves, as one PNG file in its split; returns the keys written."""
    given, files = given_splits(pictures, args, notes), {}
    splits = given or dict.fromkeys(pictures, "train")
    for key, split in splits.items():
        file = folder / split / f"{pictures[key].name}.png"
        if (other := files.setdefault(file, key)) != key:
            paths = f"{pictures[key].path} and {pictures[other].path}"
            raise UserError(f"{paths} would have the same file, {file.name}: rename one")
        file.parent.mkdir(exist_ok=True)

    def write(file):
        if len(os.fsencode(file.name)) > 245:  # later stages append .png
            raise UnreadableError(file.stem, "the name is too long: shorten it")
        tf.io.write_file(str(file), tf.io.encode_png(tf.concat(make(files[file]), axis=1)))

    written = {files[file]: file for file in sift(write, files, notes)}
    if lost := {*splits.values()} - {splits[key] for key in written}:
        raise UserError(f"no pair {f'of {lost.pop()} ' if given else ''}can be used")
    if not given:
        share = 0.2 if args.val_share is None else args.val_share
        count = round(share * len(written))
        if not 0 < count < len(written):
            problem = f"{count} of {len(written)} pairs would be in val"
            raise UserError(f"--val-share {share:g}: {problem}; use two or more pairs and e.g. 0.5")
        (folder / "val").mkdir()
        for key in random.Random(args.seed or 0).sample(sorted(written), count):
            written[key].replace(folder / "val" / written[key].name)
    return [*written]


class Legend:
    """The classes of label maps, {key: Picture}, and their colours.

    `classes` is {number, or 0xrrggbb if maps are in colours: ("#rrggbb", name)}; `present` has the
    classes of each usable map; `known` is the user's palette, {number: 0xrrggbb}, or empty.
    """

    def __init__(self, maps, palette, notes):
        self.known, self.notes = {n: int(c[1:], 16) for n, (c, _) in palette.items()}, notes
        found = sift(lambda key: self.find_classes(maps[key].path), maps, notes)
        self.present = {key: classes for key, (classes, _, _) in found.items()}
        coloured = self.coloured = {key for key, (_, _, coloured) in found.items() if coloured}
        known = {*self.known.values()}.union(*map(self.present.get, coloured))
        for key in found.keys() - coloured if coloured else ():  # all-gray maps are in colours, too
            self.present[key] = {number * 0x010101 for number in self.present[key]}
            if not self.present[key] <= known:
                problem = f"{maps[key].path} has class numbers, but others have colours"
                raise UserError(f"--labels: {problem}: make them of one kind")
        classes = sorted(set().union(*self.present.values()))
        if not 0 < (n := len(classes)) <= MOST_CLASSES:
            raise UserError(f"--labels: {n} classes; 1 to {MOST_CLASSES} allowed (no instances)")
        if n == 1 or coloured and not any(code & 0xC0C0C0 for code in classes):
            common.warn("--labels: one class, or nearly black: are these numbers in one channel?")
        elif not (coloured or palette) and len({code % 64 for code in classes}) < n:  # voc_colour
            common.warn("--labels: some colours are nearly equal: choose the colours in a CSV")
        usual = sorted(map(len, self.present.values()))[(len(found) - 1) // 2]
        if usual > 20 and not palette:
            common.warn(f"--labels: {usual} classes a map: if shades or soft edges, omit --labels")
        if share := sum(share for _, share, _ in found.values()) / len(found):
            say = print if share < 0.9 else common.warn  # blur changes fewer: photographs?
            say(f"{share:.1%} of the label maps' pixels had other colours and get the nearest")
        if coloured:
            names = dict(palette.values()) or {f"#{code:06x}": "" for code in classes}
            palette = {int(colour[1:], 16): (colour, name) for colour, name in names.items()}
        elif palette and (unknown := [f"{number}" for number in classes if number not in palette]):
            common.warn(f"not in the palette, and given other colours: {common.listed(unknown)}")
        taken, self.classes = {palette[n][0] for n in classes if n in palette}, {}
        for n in sorted(classes, key=[*palette, *classes].index):  # the CSV's order
            free = (colour for colour in map(voc_colour, range(n, n + 512)) if colour not in taken)
            self.classes[n] = palette[n] if n in palette else (next(free), "")
            taken.add(self.classes[n][0])

    def read(self, path, size=None):
        """Returns a map's codes, their distance from the palette, and whether they are colours."""
        codes, is_colours = common.read_label_map(path, size)
        if not (self.known and is_colours):
            return codes, tf.zeros_like(codes), is_colours
        return *common.nearest(codes, [*self.known.values()]), True

    def find_classes(self, path):
        """Returns a map's classes, the share of pixels changed, and whether they are colours."""
        codes, apart, is_colours = self.read(path)
        found = {int(code) for code in tf.unique(tf.reshape(codes, [-1])).y}
        far, share = (float(tf.reduce_mean(tf.cast(apart > n, tf.float32))) for n in (48**2, 0))
        with common.opening(path) as image:
            jpeg = image.format in {"JPEG", "MPO"}  # JPEG invents numbers
            if far > 0.01 and image.mode == "P":
                raise UnreadableError(path, "not the CSV's colours: add them, or save gray indices")
        self.notes["a tenth of it matches no colour of the CSV" if far > 0.1 else ""].add(path)
        if len(found) > (most := 2 if jpeg and not is_colours else MOST_CLASSES):
            cure = "export it as PNG" if most == 2 else "save PNG, or give --labels a palette (CSV)"
            raise UnreadableError(path, f"over {most} classes: a JPEG ({cure}), or a photograph")
        return found, share, is_colours

    def paint(self, path, size):
        """Reads a label map in the classes' colours, (height, width, 3) uint8."""
        codes, _, is_colours = self.read(path, size)
        codes = codes * 0x010101 if self.coloured and not is_colours else codes
        colours = [int(colour[1:], 16) for colour, _ in self.classes.values()]
        return common.paint(common.nearest(codes, [*self.classes], colours)[0])

    def write(self, written, folder, about):
        """Writes labels.csv of the label maps used, describes them in `about`, prints the table."""
        about |= {"condition": "labels", "colours": [[*pair] for pair in self.classes.values()]}
        about |= {} if self.coloured else {"classes": [*self.classes]}
        rows = [["class", "colour", "name", "pictures"]]
        for n, (code, (colour, name)) in enumerate(self.classes.items()):
            count = sum(code in self.present[key] for key in written)
            rows.append([n if self.coloured else code, colour, name, count])
        with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
        for number, colour, name, count in rows:
            print(f"{number:>8}  {colour:8}  {count:>8}  {common.printable(name)}")


def voc_colour(n):
    """Returns the colour "#rrggbb" of class n in PASCAL VOC: its bits are red, green, blue, ..."""
    rgb = [sum((n >> (3 * k + c) & 1) << (7 - k) for k in range(8)) for c in range(3)]
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def read_palette(file):
    """Reads a CSV file with class, colour (#rrggbb) and name: {class: ("#rrggbb", name)}."""
    palette = {}
    try:
        with Path(file).open(encoding="utf-8-sig", newline="") as lines:
            for row in csv.DictReader(lines):
                colour = row["colour"].strip().lower()
                if not re.fullmatch("#[0-9a-f]{6}", colour):
                    raise ValueError(f"colour {colour}: not of the form #rrggbb")
                palette[int(row["class"])] = colour, (row.get("name") or "").strip()
        if not palette:
            raise ValueError("no class in it")
    except (ValueError, KeyError, AttributeError, TypeError, csv.Error) as error:
        raise UserError(f"--labels {file}: needs columns class,colour,name ({error})") from error
    return palette


def make_dataset(args, out):
    """Makes the dataset `out` of the user's own pictures."""
    if args.import_cityscapes:
        args.labels = read_palette(HERE / "data" / "cityscapes.csv")
        ends = "gtFine/*/*/*_gtFine_color.png", "leftImg8bit/*/*/*_leftImg8bit.png"
        args.pair = [args.import_cityscapes / end for end in ends]
    notes, made = defaultdict(set), 0
    ready = len(args.pair or ()) == 1 and args.pair[0].is_dir() and args.pair[0]
    home = ready.parent if ready and SPLIT.fullmatch(ready.name) else ready  # a dataset, perhaps
    about = common.describe_dataset(home) if ready else {"direction": "AtoB"}
    about |= {"origin": shlex.join(sys.argv[1:])} | ({"condition": "sketch"} if args.edges else {})
    with new_dataset(out, about) as folder:
        try:
            made = make_pairs(args, folder, about, notes)
        finally:
            common.tell(notes, f"{made} pairs made")


def parse_flags(argv):
    """Returns the parsed flags."""
    parser = common.parser_of(__doc__, "--size --seed", seed=None)
    path = {"type": lambda text: Path(os.path.expanduser(text))}
    add = parser.add_mutually_exclusive_group(required=True).add_argument
    add("--download", choices=[*common.PAPER], help="a dataset of the paper")
    add("--pair", nargs="+", metavar="PATTERN", help="folders, or patterns in quotes", **path)
    add("--edges", nargs="+", metavar="PATTERN", help="photographs to draw sketches of", **path)
    add("--import-cityscapes", metavar="DIR", help="folder with leftImg8bit/ and gtFine/", **path)
    add = parser.add_argument
    add("--out", metavar="DIR", help="folder of the new dataset", **path)
    add("--url", metavar="URL|FILE", help="with --download: a mirror, or a file of your own")
    options = {"nargs": "?", "const": {}, "type": read_palette, "metavar": "CSV"}
    add("--labels", help="the conditions are label maps; CSV: class,colour,name", **options)
    add("--val-share", type=common.number(0, 1), help="share of the pairs for val/ (0.2)")
    args = parser.parse_args(argv)
    count, own = len(args.pair or []), args.pair or args.edges
    chosen = (args.val_share, args.seed) != (None, None)
    problems = {
        "--url: works only with --download": args.url and not args.download,
        "--labels: needs --pair with two folders": args.labels is not None and count != 2,
        "--pair, --edges: too many patterns; put them in quotes": len(own or []) > 1 + bool(count),
        "--val-share, --seed: work only with --pair or --edges": chosen and not own,
        "--out: name a new folder, e.g. --out data/mine": not args.out.name if args.out else own,
    }
    for problem, given in problems.items():
        if given:
            raise UserError(problem)
    return args


def main(argv=None):
    args = parse_flags(argv)
    name = "cityscapes" if args.import_cityscapes else args.download
    out = args.out or HERE / "data" / name
    if args.download and (out / "train").is_dir():
        print(f"{out} is already there; remove it to download it again.")
    elif args.download:
        download_dataset(args.download, args.url or URL.format(name=args.download), out)
    else:
        make_dataset(args, out)
    counts = ", ".join(f"{len(p)} in {split}" for split, p in common.find_pairs(out).items())
    flags = f"--dataset {shlex.quote(str(args.out or name))}"
    flags += " --size {}x{}".format(*args.size) if args.size != common.IMAGE_SIZE else ""
    print(f"\n{out}: {counts}. Look at it, then train on it:")
    print(f"    python 03_pix2pix_data.py {flags}")
    print(f"    python 05_pix2pix_train.py {flags} --out {shlex.quote(f'runs/{out.name}')}")


if __name__ == "__main__":
    common.run_main(main)
