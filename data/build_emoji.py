# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy==2.4.6", "pillow==13.0.0", "resvg-py==0.5.0", "scikit-image==0.26.0",
#                 "scipy==1.17.1"]
# ///
"""Build data/emoji: 512x256 pictures, with a sketch on the left and a 3D picture on the right.

Microsoft drew its Fluent Emoji twice: flat, as SVG, and in 3D. Both have the same shapes in the
same places. The 3D picture is the target. The sketch is made from the flat drawing as a hand
would draw it: with one pen, a line where two shapes meet, one stroke for dark, thin shapes (a
mouth, a brow), ink for dark, round shapes (a pupil), nothing finer than two strokes.

    pipx run data/build_emoji.py                      (or: uv run data/build_emoji.py)
    pipx run data/build_emoji.py FLAT.tgz 3D.tgz      the two packages, if they are here already

Without files it gets the packages by `npm pack`. It writes data/emoji and removes the pairs that
were there. Versions and hashes are pinned and the split is seeded: building again gives the same
files. Nothing here is needed to train: the pairs are in the repository.
"""

import hashlib
import io
import json
import random
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageColor, ImageOps, ImageStat
from resvg_py import svg_to_bytes
from scipy import ndimage
from skimage.morphology import skeletonize

OUT = Path(__file__).parent / "emoji"
PACKAGES = {  # name@version: SHA-512 of what `npm pack` gives
    "@iconify-json/fluent-emoji-flat@1.2.6": (
        "458e3b4603dbe3b7d8522cab03ae2c20e2f4f94534dacdbdb17a4d05b2104415"
        "253e57cd1532949990c4446bb10ecffbc8d196a9062fb9a4983353387d15e553"
    ),
    "@lobehub/fluent-emoji-3d@1.1.0": (
        "5a5ab69554ad4e7afc043a48274a449d328ee0bb83c71a931214ef46d0f50cb4"
        "45d267bba207914232a87a10c75ee549d9069e720979c1106feb4954006de1ee"
    ),
}
SIZE = 512  # of the drawing while it is made, twice the sketch's
PEN = 14  # width of a stroke in a drawing of SIZE: 7 pixels in the sketch
LEAST_IOU = 0.93  # between the silhouettes of the flat drawing and the 3D picture
LEAST_CHANGE = 0.06  # least difference to any other sketch or its mirror image, as a share of ink
VAL_FAMILIES = 48
SPLIT_SEED = 2017  # the year of the Pix2Pix paper
VARIANT_MARKS = {"200d", "fe0f", "2640", "2642", "27a1"}  # joiner, style, woman, man, facing right
GROWN_UPS = {"1f468", "1f469", "1f9d1"}  # man, woman, person: a job is what follows
WOMAN_OR_MAN = {"1f468", "1f469", "2640", "2642"}  # their hair tells the colour of their clothes
SKIN_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}
MANY_OF_A_KIND = [  # ranges of the first code point
    (0x1F31B, 0x1F31E), (0x1F600, 0x1F64A), (0x1F910, 0x1F92F), (0x1F970, 0x1F97A),
    (0x1F9D0, 0x1F9D0), (0x1FAE0, 0x1FAE6), (0x2639, 0x263A),  # faces
    (0x1F442, 0x1F450), (0x1F4AA, 0x1F4AA), (0x1F590, 0x1F596), (0x1F64B, 0x1F64F),
    (0x1F9B5, 0x1F9B6), (0x1FAF0, 0x1FAF8), (0x270A, 0x270D),  # hands, mouths, ears, feet
    (0x1F385, 0x1F385), (0x1F466, 0x1F478), (0x1F47C, 0x1F47C), (0x1F481, 0x1F487),
    (0x1F575, 0x1F575), (0x1F930, 0x1F939), (0x1F9B8, 0x1F9B9), (0x1F9D1, 0x1F9DF),  # people
    (0x1F48C, 0x1F48C), (0x1F493, 0x1F498), (0x1F49D, 0x1F49E), (0x2665, 0x2665),
    (0x2763, 0x2764),  # hearts
]  # fmt: skip
ONE_OF_A_KIND = (  # families; all in train, since no other picture tells their colours
    "1f42d 1f42e 1f430 1f431 1f433 1f434 1f435 1f436 1f437 1f439 1f43a 1f43b 1f43d 1f981 1f984 "
    "1f989 1f98a 1f99d 1f423 1f424 1f425 1f40c 1f422 1f42c 1f41f 1f416 1f411 1f415 1f408 1f98b "
    "1f986 1f995 1f994 1f47a 1f47d 1f608 1f916 1f4a9 1f9de 1f383 "  # animals, beings
    "1f34e 1f34a 1f34b 1f350 1f352 1f353 1f345 1f344 1f346 1f366 1f369 1f9c1 1f382 1f339 1f33b "
    "1f33c 1f333 1f332 1f335 1f340 1f3a9 1f452 1f451"  # things a child draws
)
DRESSED = "1f478 1f47c 1f933 1f934 1f936 1f9d5"  # families; like all women, men and jobs, in train
LEFT_OUT = (  # families
    "1f621 1f922 1f92c 1f92e 1f975 1f976 1f628 1f630 1f631 1fae5 "  # no line tells the colour
    "1f911 1f595 1f930 1f931 job-1f37c 1f46f "  # signs; rude, or too private for a lesson
    "job-1f4bb "  # a company's mark
    # Families without a visible face, or with more detail than a hand would draw:
    "1f443 1f445 1f465 1f470 1f472 1f636-1f32b 1f9d7 1f9da 1f9dd 1f9df job-1f9bd job-1f3eb"
)


def read_packages(paths):
    """Returns {file name: bytes} of each package; exits with one line if a hash differs.

    Args:
        paths: of the packages' files, in the order of PACKAGES, or [] to get them by npm.
    """
    packages = {}
    with tempfile.TemporaryDirectory() as folder:
        if not paths:
            command = ["npm", "pack", "--silent", "--pack-destination", folder, *PACKAGES]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            paths = [next(Path(folder).glob(f"*-{name.split('@')[-1]}.tgz")) for name in PACKAGES]
        if len(paths) != len(PACKAGES):
            sys.exit("give both packages, or none: FLAT.tgz 3D.tgz")
        for (name, digest), path in zip(PACKAGES.items(), paths):
            data = Path(path).read_bytes()
            if hashlib.sha512(data).hexdigest() != digest:
                sys.exit(f"{path}: not the {name} that the pairs were made from (SHA-512)")
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                files = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}
            packages[name] = {Path(file).name: content for file, content in files.items()}
    return packages.values()


def family_of(code):
    """Returns the family that all variants of a design share; for people with a job, the job."""
    points = [point for point in code.split("-") if point not in VARIANT_MARKS]
    if len(points) > 1 and points[0] in GROWN_UPS:
        points[0] = "job"
    return "-".join(points)


def find_shapes(body):
    """Tells which shape of a flat drawing is seen where.

    Returns:
        labels: (SIZE, SIZE) integers, 0 where nothing is drawn, else the shape's number.
        colours: (shapes + 1, 3), 0 to 255, of each number.
    None if the drawing has gradients, filters or copies, which this cannot take apart.
    """
    svg = ET.fromstring(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{body}</svg>')
    svg.set("shape-rendering", "crispEdges")  # no mixed colours at edges
    colours = ["#fff"]

    def number(element, fill):
        """Paints each shape in a colour that is its number."""
        fill = element.get("fill", fill)
        element.attrib.pop("opacity", None)
        if element.tag.split("}")[1] in {"path", "circle", "ellipse", "rect"}:
            for key in ("fill", "stroke"):
                colour = fill if key == "fill" else element.get("stroke", "none")
                if colour != "none":
                    element.set(key, f"#{len(colours):06x}")
                    colours.append(colour)
        for child in element:
            number(child, fill)

    number(svg, "#000")
    tags = {element.tag.split("}")[1] for element in svg.iter()}
    if not tags <= {"svg", "g", "path", "circle", "ellipse", "rect"}:
        return None
    png = svg_to_bytes(svg_string=ET.tostring(svg, encoding="unicode"), width=SIZE, height=SIZE)
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    red, green, blue, alpha = np.moveaxis(np.asarray(picture).astype(int), 2, 0)
    labels = np.where(alpha > 127, red * 65536 + green * 256 + blue, 0)
    return labels, np.array([ImageColor.getrgb(colour)[:3] for colour in colours])


def overlap(labels, picture):
    """Returns the intersection over union of a flat drawing's and an RGBA picture's silhouettes."""
    drawn = labels > 0
    solid = np.asarray(picture.resize((SIZE, SIZE)))[..., 3] > 127
    return (drawn & solid).sum() / (drawn | solid).sum()


def parts(mask):
    """Yields each connected part of a (SIZE, SIZE) mask."""
    numbers, _ = ndimage.label(mask, np.ones((3, 3)))
    for number in range(1, numbers.max() + 1):
        yield numbers == number


def box_of(mask, margin=0):
    """Returns the slices of the smallest box that holds a mask, with a margin."""
    sides = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return tuple(slice(max(side[0] - margin, 0), side[-1] + 1 + margin) for side in sides)


def radius(mask):
    """Returns the radius in pixels of the largest circle inside a mask."""
    return ndimage.distance_transform_edt(np.pad(mask[box_of(mask)], 1)).max()


def edge_of(mask):
    """Returns the mask of what lies within three pixels around a mask."""
    return ndimage.binary_dilation(mask, iterations=3) & ~mask


def fill_in(labels, gone):
    """Gives each pixel of `gone` the label of the nearest pixel outside `gone`."""
    nearest = ndimage.distance_transform_edt(gone, return_distances=False, return_indices=True)
    return labels[tuple(nearest)]


def middle(mask):
    """Returns the line along the middle of a shape, one pixel wide, without short side branches."""

    def ends(line):
        return line & (ndimage.convolve(line.astype(int), np.ones((3, 3), int)) == 2)

    box = box_of(mask, margin=8)
    whole = skeletonize(ndimage.gaussian_filter(mask[box].astype(float), 2) > 0.5)
    line, steps = whole.copy(), round(1.3 * radius(mask))
    result = np.zeros_like(mask)
    for _ in range(steps):  # all ends recede: side branches go
        line &= ~ends(line)
    tips = ends(line) if line.any() else whole
    for _ in range(steps):  # and what is left grows back
        tips |= ndimage.binary_dilation(tips, np.ones((3, 3))) & whole & ~line
    result[box] = line | tips
    return result


def find_marks(labels, colours):
    """Finds what a hand draws as marks: strokes and ink.

    Args:
        labels, colours: as find_shapes returns them.
    Returns:
        three (SIZE, SIZE) masks: lines one pixel wide; ink; the shapes that became lines or ink,
        and small ones, such as reflections, which nobody draws.
    """
    strokes, ink, gone = (np.zeros(labels.shape, bool) for _ in range(3))
    light = colours @ (0.3, 0.59, 0.11)
    dark = (colours.max(axis=1) < 160)[labels] & (labels > 0)
    for hole in parts(ndimage.binary_fill_holes(dark) & ~dark):
        if radius(hole) < 0.8 * PEN:  # a light in an eye
            dark |= hole

    for part in parts(dark):
        size = radius(part)
        line = middle(part) if size < 2.2 * PEN else part[:0]  # no pixels
        outside = (labels[edge_of(part)] == 0).mean()
        if line.sum() > 3 * size:  # a mouth, a brow, a closed eye
            strokes |= line
        elif size < 5 * PEN and part.sum() < 13 * size**2 and outside < 0.3:  # a pupil, a nose
            ink |= part
            y, x = (round(n) for n in ndimage.center_of_mass(part))
            strokes[y - 4 : y + 5, x - 4 : x + 5] = True  # a dot at least
        elif size >= PEN:
            continue  # hair, a hat: a region to colour
        gone |= part

    for number in range(1, len(colours)):
        for part in parts((labels == number) & ~gone & ~dark):
            size = radius(part)
            if size < 2.2 * PEN:
                line, edge = middle(part), labels[edge_of(part) & ~gone]
                length, outside = line.sum(), (edge == 0).mean() if edge.size else 1
                darker = edge.size and light[number] < np.median(light[edge]) - 20
                thin = length > max(4 * size, 2 * PEN)
                if size >= 1.6 * PEN:  # not a face, whose holes are eyes
                    thin = length > 20 * size and (part == ndimage.binary_fill_holes(part)).all()
                inner = length < 8 * PEN or outside < 0.3 or outside > 0.9  # no rim of a shape
                if darker and thin and inner:
                    strokes |= line  # between fingers, a whisker
                    gone |= part
            if size < PEN:
                gone |= part
    return strokes, ink, gone


def find_regions(labels, gone):
    """Returns the labels without the pixels of `gone`, with round corners and no fine parts."""
    labels = fill_in(labels, gone)
    for _ in range(2):
        # Each pixel takes the label that is most common around it.
        seen = np.unique(labels)
        share = [ndimage.gaussian_filter((labels == number).astype(float), 5) for number in seen]
        labels = seen[np.argmax(share, axis=0)]
        fine = np.zeros(labels.shape, bool)
        for number in seen[1:]:
            for part in parts(labels == number):
                if radius(part) < 0.8 * PEN:
                    fine |= part
        labels = fill_in(labels, fine)
    return labels


def meet(a, b, colours):
    """Returns where two label arrays differ, and their colours do too or one is the background."""
    apart = np.abs(colours[a] - colours[b]).sum(axis=-1) > 30
    return (a != b) & (apart | (a == 0) | (b == 0))


def draw_sketch(labels, colours):
    """Draws the shapes with one pen: marks, and a line where two regions meet.

    Args:
        labels, colours: as find_shapes returns them.
    Returns:
        an "L" picture of 256x256, black on white.
    """
    strokes, ink, gone = find_marks(labels, colours)
    labels = find_regions(labels, gone)
    strokes[1:] |= meet(labels[1:], labels[:-1], colours)
    strokes[:, 1:] |= meet(labels[:, 1:], labels[:, :-1], colours)
    pen = np.clip(PEN / 2 + 0.5 - ndimage.distance_transform_edt(~strokes), 0, 1)
    dots = np.clip(8 * ndimage.gaussian_filter(ink.astype(float), 3) - 3.5, 0, 1)
    return Image.fromarray(np.uint8(np.rint(255 * (1 - np.maximum(pen, dots))))).reduce(2)


def nearly_equal(ink, other):
    """Returns whether two sketches, as they are or mirrored, differ by less than LEAST_CHANGE."""
    gaps = [ImageChops.difference(ink, version) for version in (other, ImageOps.mirror(other))]
    least = min(ImageStat.Stat(gap).sum[0] for gap in gaps)
    return least < LEAST_CHANGE * ImageStat.Stat(ink).sum[0]


def main():
    flat, solid = read_packages([Path(path) for path in sys.argv[1:]])
    icons, names = (json.loads(flat[file]) for file in ("icons.json", "chars.json"))
    one_of_a_kind, left_out = ONE_OF_A_KIND.split(), LEFT_OUT.split()
    families = defaultdict(list)
    for file in sorted(file for file in solid if file.endswith(".webp")):
        code = file.removesuffix(".webp")
        points, family = code.split("-"), family_of(code)
        name = names.get(code, names.get(code.replace("-fe0f", "")))
        wanted = any(start <= int(points[0], 16) <= end for start, end in MANY_OF_A_KIND)
        wanted = (wanted or family in one_of_a_kind) and family not in left_out
        if wanted and name in icons["icons"] and not SKIN_TONES & set(points):
            families[family].append((code, icons["icons"][name]["body"]))

    pairs, inks = {}, []
    for turn, (_, variants) in enumerate(sorted(families.items())):
        # The families start at their members in turn, so that women and men are about equally
        # frequent; if a member's two styles do not match, the next member is tried.
        members = [m for m in variants if WOMAN_OR_MAN & set(m[0].split("-"))] or variants
        for code, body in members[turn % len(members) :] + members[: turn % len(members)]:
            shapes = find_shapes(body)
            picture = Image.open(io.BytesIO(solid[f"{code}.webp"])).convert("RGBA")
            if shapes is None or overlap(shapes[0], picture) < LEAST_IOU:
                continue
            sketch = draw_sketch(*shapes)
            ink = ImageOps.invert(sketch).reduce(4)
            if any(nearly_equal(ink, other) for other in inks):
                print(f"{code}: nearly equal to another sketch, left out")
                break
            inks.append(ink)
            pair = Image.new("RGB", (512, 256), "white")
            pair.paste(sketch, (0, 0))
            pair.paste(picture, (256, 0), picture)
            pairs[code] = pair
            break

    def is_told(code):
        """Returns whether other pictures tell its colours; none do for a whale, or for clothes."""
        marks, family = set(code.split("-")[1:]), family_of(code)
        dressed = marks & WOMAN_OR_MAN or family.startswith("job-") or family in DRESSED.split()
        return family not in one_of_a_kind and not dressed

    codes = sorted(filter(is_told, pairs))
    val = random.Random(SPLIT_SEED).sample(codes, VAL_FAMILIES)
    for split, part in (("val", val), ("train", sorted(set(pairs) - set(val)))):
        (OUT / split).mkdir(parents=True, exist_ok=True)
        for old in (OUT / split).iterdir():
            old.unlink()
        for code in part:
            # Without chroma subsampling, at 46 dB: half of what a PNG takes.
            pairs[code].save(OUT / split / f"{code}.jpg", quality=92, subsampling=0, optimize=True)
        print(f"{OUT / split}: {len(part)} pairs")
    about = {"direction": "AtoB", "condition": "sketch", "origin": ", ".join(PACKAGES)}
    (OUT / "dataset.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
