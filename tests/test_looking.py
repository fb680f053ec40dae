"""Stage 3 measures, draws and doubts pairs; stage 6 colours files as they are."""

import argparse
import json
import random
from collections import defaultdict

import common

import pytest
import tensorflow as tf
from conftest import as_floats, change, difference, save, turned, values
from PIL import Image, ImageDraw, ImageOps

LOOK, COLOUR = "03_pix2pix_data.py", "06_sketch_pad.py"


def drawing(seed=0, size=256, pen=6, paper=255, ink=0):
    """Lines that differ from seed to seed."""
    dice, image = random.Random(seed), Image.new("L", (size, size), paper)
    for _ in range(4):
        line = [dice.randrange(size) for _ in range(4)]
        ImageDraw.Draw(image).line(line, fill=ink, width=pen)
    return image.convert("RGB")


def pair(left, right):
    image = Image.new("RGB", (left.width + right.width, left.height))
    image.paste(left, (0, 0))
    image.paste(right, (left.width, 0))
    return image


def coloured(image, seed):
    """The same lines on a background of another colour."""
    dice = random.Random(seed + 99)
    ground = tuple(dice.randrange(99, 255) for _ in "rgb")
    return ImageOps.colorize(image.convert("L"), "black", ground)


@pytest.fixture
def mine(tmp_path):
    """A sound dataset of 6 training and 2 validation pairs."""
    for n in range(8):
        left = drawing(n, size=64, pen=2)
        split = "train" if n < 6 else "val"
        save(pair(left, coloured(left, n)), tmp_path / "mine" / split / f"{n}.png")
    return tmp_path / "mine"


# === Stage 3 =================================================================


def test_a_sound_dataset(mine, call_main, tmp_path):
    """Broken if stage 3 warns about sound pairs, miscounts them, or draws them without --size."""
    done = call_main(LOOK, "--dataset", "mine", "--size", "256x512")
    assert done.returncode == 0 and not done.stderr, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["train", "6", "0", "64x64", "(6)"] in rows and ["val", "2", "0", "64x64", "(2)"] in rows
    assert "mine, AtoB: condition = left half, target = right half" in done.stdout
    width, height = Image.open(tmp_path / "runs/03_pix2pix_data/augmentation.png").size
    assert width > 1.5 * height, "not at --size 256x512"


def test_unreadable_and_unused_files_are_named(mine, call_main, tmp_path):
    """Broken if one call does not name all unusable files, or does not measure the others."""
    data = (mine / "train" / "0.png").read_bytes()
    (mine / "train" / "cut.png").write_bytes(data[: len(data) // 2])
    (mine / "val" / "text.png").write_text("no picture")
    save(Image.new("RGBA", (64, 32)), mine / "train" / "clear.png")
    save(Image.new("RGB", (64, 32)), mine / "train" / "old.bmp")
    done = call_main(LOOK, "--dataset", "mine")
    assert done.returncode == 2
    *_, last = done.stderr.splitlines()
    problems = ["cut.png (damaged", "text.png (not a picture", "clear.png (transparent)"]
    assert all(word in last for word in [*problems, "07_get_pairs.py"])
    words = "left out, not a .jpg or .png directly in train/, val/ or test/ (1): "
    assert words in done.stderr and "1 files left out" in done.stdout
    rows = [line.split()[:3] for line in done.stdout.splitlines()]
    assert ["train", "6", "2"] in rows and ["val", "2", "1"] in rows
    for path in (mine / "val").iterdir():
        path.write_text("no picture")
    done = call_main(LOOK, "--dataset", "mine")
    assert done.returncode == 2 and "all of val is unusable: mine/val/6.png (not" in done.stderr


@pytest.mark.parametrize("number, kind", [(0, "sketch"), (15, "sketch"), (15, "labels")])
def test_a_half_without_colours(number, kind, mine, call_main):
    """Broken if stage 3 gives no warning about halves that are blank or hold class numbers."""
    (mine / "dataset.json").write_text(json.dumps({"condition": kind}))
    for path in mine.glob("*/*.png"):
        image = Image.open(path).copy()
        x = 64 if kind == "sketch" else 0
        image.paste((number,) * 3, (x, 0, x + 32, 64))
        image.paste("black", (x + 32, 0, x + 64, 64))
        save(image, path)
    said = call_main(LOOK, "--dataset", "mine").stderr
    assert ": a half is blank or holds class numbers; see --labels of stage 7" in said


def test_frames_of_a_clip(mine, call_main):
    """Broken if there is no warning about pairs in both splits, or about pairs of equal halves."""
    for n in (0, 1):
        image = Image.open(mine / "train" / f"{n}.png").copy()
        ImageDraw.Draw(image).point((3, 3), fill="red")
        halves = [image.crop((x, 0, x + 64, 64)) for x in (0, 64)]
        save(pair(*map(ImageOps.mirror, halves)) if n else image, mine / "val" / f"9{n}.png")
    image.paste(image.crop((0, 0, 64, 64)), (64, 0))
    save(image, mine / "train" / "equal.png")
    said = call_main(LOOK, "--dataset", "mine").stderr
    assert "equal halves; is one missing? (1): mine/train/equal.png" in said
    assert "2 of 4 validation pairs nearly equal a training pair, e.g. mine/val/90.png" in said
    assert "and mine/train/0.png" in said


@pytest.mark.parametrize("size", [(400, 300), (256, 256)])
def test_single_pictures_are_no_pairs(size, call_main, tmp_path):
    """Broken if there is no warning that a dataset has single photographs instead of pairs."""
    for n in range(8):
        image = drawing(n, size=400, pen=9).resize(size)
        save(coloured(image, n), tmp_path / "photos" / ("val" if n > 5 else "train") / f"{n}.jpg")
    done = call_main(LOOK, "--dataset", "photos")
    assert done.returncode == 0
    assert "hardly more alike than any two halves: are these pairs?" in done.stderr


def test_a_look_by_hand(stage3, tmp_path, capsys):
    """Broken if channels are swapped, or the table leaves a pair out or weighs pairs by size.

    Conditions: one is a quarter black, else white; one is white: mean 3/4, deviation sqrt(7)/4.
    Targets: one has a single colour; one is black: means 0, -1, -0.8, deviations 1, 0, 0.2.
    """
    left, right = Image.new("RGB", (32, 32), "white"), Image.new("RGB", (32, 32), (255, 0, 51))
    left.paste("black", (0, 0, 8, 32))
    path = str(save(pair(left, right), tmp_path / "a.png"))
    found = stage3.look(path, "AtoB", size=(32, 32))
    assert (found.size, found.ink, found.colours) == ("32x32", 0.25, [2.0, 1.0])
    places = [(0, 0), (0, 255), (2, 255), (3, 255), (4, 0), (5, 51), (5, 255)]
    assert [float(found.shares[place]) for place in places] == [0.25, 0.75, 0.75, 1, 1, 1, 0]
    large = pair(Image.new("RGB", (90, 70), "white"), Image.new("RGB", (90, 70)))
    other = stage3.look(str(save(large, tmp_path / "b.png")), "AtoB", size=(32, 32))
    stage3.print_table({"train": [found, other]}, {"train": []})
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["train", "2", "0", "32x32", "(1),", "90x70", "(1)"] in rows
    assert ["train", "condition", *["0.750"] * 3, *["0.661"] * 3, "2", "12.5%"] in rows
    numbers = ["0.000", "-1.000", "-0.800", "1.000", "0.000", "0.200"]
    assert ["train", "target", *numbers, "1"] in rows
    swapped = stage3.look(path, "BtoA", size=(32, 32))
    assert (float(swapped.shares[2, 51]), swapped.ink, swapped.colours) == (1, 1, [1.0, 2.0])
    many = found._replace(colours=[300.0, 2.0])
    stage3.print_table({"train": [many]}, {"train": []}, labels=True)
    found = found._replace(colours=[9.0, 9.0], shares=found.shares[::-1])
    stage3.print_table({"train": [found]}, {"train": []})
    said = capsys.readouterr().out
    assert "did you mean the other --direction?" in said and "conditions are label maps" in said


# === Stage 6 =================================================================


@pytest.fixture
def read(stage6):
    """Reads a file as --colour does; returns the sheet, the size, and the warnings about it."""

    def read(path, kind="picture", whole=False, clean=False, invert=False, **conditions):
        usual = {"kind": kind, "size": (256, 256), "line_width": 7.0, "colours": []}
        args = argparse.Namespace(whole=whole, clean=clean, invert=invert)
        notes = defaultdict(set)
        sheet, size = stage6.read_condition(path, usual | conditions, args, notes)
        return sheet, size, " ".join(notes)

    return read


def test_nothing_is_rewritten_unless_asked(read, tmp_path):
    """Broken if a sketch loses its shading, or the warning about dark paper names no --invert."""
    shades = Image.linear_gradient("L").point(lambda value: 100 + value * 0.6).convert("RGB")
    sheet, _, said = read(save(shades, tmp_path / "a.png"), "sketch")
    wanted = [(100 + int(n * 0.6)) / 127.5 - 1 for n in range(256)]
    assert not said and values(sheet, 0, slice(None), 9, 0) == pytest.approx(wanted, abs=0.02)
    path = save(drawing(paper=0, ink=255), tmp_path / "canny.png")
    sheet, _, said = read(path, "sketch")
    assert "--clean (photo) or --invert (light lines)?" in said
    assert float(tf.reduce_mean(sheet)) < -0.5
    sheet, _, said = read(path, "sketch", invert=True)
    assert not said and float(tf.reduce_mean(sheet)) > 0.5
    assert not read(path, "picture")[2], "a run on photographs takes dark ones"
    white = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    numbers = Image.linear_gradient("L").point(lambda value: value // 64)
    for image, kind in ((white, "sketch"), (numbers, "picture")):
        assert "blank: are these class numbers" in read(save(image, tmp_path / "b.png"), kind)[2]


@pytest.mark.parametrize("pen, paper", [(7, 255), (7, 235), (3, 255), (3, 235)])
def test_line_width(pen, paper, stage6):
    """Broken if the width of lines is another than their pen's, or a scan's paper counts as ink."""
    lines = Image.new("L", (256, 256), paper)
    for x in (40, 120, 200):
        ImageDraw.Draw(lines).line((x, 20, x, 230), fill=20, width=pen)
    ink = 1.0 - tf.constant(common.keras.utils.img_to_array(lines)) / 255.0
    assert stage6.line_width(ink) == pytest.approx(pen, rel=0.1)


def test_pairs_are_no_drawings(run, few_pairs, call_main):
    """Broken if there is no warning that both halves of a pair are coloured as one picture."""
    done = call_main(COLOUR, "--run", "run", "--colour", few_pairs / "val", "--out", "out")
    assert "a pair of the run's data, coloured as one: cut out one half (2)" in done.stderr


def test_photographs_of_drawings_are_cleaned_when_asked(read, tmp_path):
    """Broken if --clean leaves the paper gray, the ink pale, or lines thinner than the run's."""
    photo = Image.composite(
        Image.new("L", (512, 512), 90),
        Image.linear_gradient("L").resize((512, 512)).point(lambda v: 150 + v * 0.3),
        ImageOps.invert(drawing(size=512, pen=3)).convert("L"),
    )
    sheet, _, _ = read(save(photo, tmp_path / "a.png"), "sketch", clean=True)
    levels = tf.sort(tf.reshape(sheet, [-1]))
    assert float(levels[len(levels) // 2]) == 1.0 and float(levels[len(levels) // 100]) < -0.9
    ink = float(tf.reduce_mean(tf.cast(sheet < 0, tf.float32)))
    thin, _, _ = read(tmp_path / "a.png", "sketch", clean=True, line_width=1.5)
    thin = float(tf.reduce_mean(tf.cast(thin < 0, tf.float32)))
    assert ink > 1.6 * thin, "lines are not widened"


def test_the_range_of_training_is_used(read, tmp_path):
    """Broken if the run's range is not applied to deep files, or a mismatch gives no warning."""
    path = save(Image.new("I;16", (64, 64), 1024), tmp_path / "a.png")
    sheet, _, said = read(path, range=[0, 4096])
    assert values(sheet, 0, 9, 9) == pytest.approx([-0.5] * 3, abs=0.01) and not said
    assert "beyond the run's range, 0 to 999" in read(path, range=[0, 999])[2]
    assert "more than 8 bits, but the run has no range" in read(path)[2]
    path = save(Image.new("L", (64, 64), 64), tmp_path / "b.png")
    assert "8 bits, but the run's pictures had more" in read(path, range=[0, 4096])[2]
    path = save(Image.new("F", (64, 64), float("nan")), tmp_path / "c.tif")
    with pytest.raises(common.UnreadableError, match="NaN"):
        read(path, range=[0, 4096])


def test_label_maps_take_the_colours_of_the_run(read, tmp_path):
    """Broken if a map is cropped, its colours are mixed or wrong, or unknown classes pass."""
    labels = {"colours": [["#ff0000", "car"], ["#0000ff", ""]], "classes": [7, 0]}
    image = Image.new("L", (512, 100))
    image.paste(7, (0, 0, 257, 100))
    path = save(image, tmp_path / "map.png")
    sheet, size, said = read(path, "labels", **labels)
    assert size == (512, 100) and not said and sheet.shape == (1, 256, 256, 3)
    assert values(sheet, 0, 9, 127) == [1, -1, -1] and values(sheet, 0, 9, 129) == [-1, -1, 1]
    whole, _, _ = read(path, "labels", whole=True, **labels)
    assert whole.shape == (1, 100, 512, 3) and values(whole, 0, 9, 256) == [1, -1, -1]
    red = save(Image.new("RGB", (64, 64), "red"), tmp_path / "red.png")
    assert values(read(red, "labels", **labels)[0], 0, 9, 9) == [1, -1, -1]
    green = save(Image.new("RGB", (64, 64), "green"), tmp_path / "green.png")
    assert "no colour of the run's label maps" in read(green, "labels", **labels)[2]
    nine = save(Image.new("L", (64, 64), 9), tmp_path / "nine.png")
    for known in (labels, labels | {"classes": [], "exact": True}):  # numbers, or colours only
        with pytest.raises(common.UnreadableError, match="classes that the run does not know: 9"):
            read(nine, "labels", **known)
    with pytest.raises(common.UnreadableError, match="--clean and --invert are for drawings"):
        read(nine, "labels", clean=True, **labels)


def test_label_maps_saved_as_jpeg(read, tmp_path):
    """Broken if soft edges of a JPEG map stay in a run of exact colours, or go in another run."""
    image = Image.new("RGB", (256, 256), "red")
    ImageDraw.Draw(image).ellipse((50, 50, 200, 200), "blue")
    path = save(image, tmp_path / "map.jpg", quality=90)
    labels = {"colours": [["#ff0000", ""], ["#0000ff", ""]]}
    for exact in (True, False):
        pixels = tf.reshape(read(path, "labels", exact=exact, **labels)[0], [-1])
        assert (len(tf.unique(pixels).y) == 2) == exact


@pytest.fixture
def run(make_run, tmp_path):
    """An untrained run of narrow networks, on photographs."""
    common.keras.utils.set_random_seed(0)
    run = make_run(tmp_path / "run", common.UNet(2))
    change(run, "data", "condition", {"kind": "picture"})
    return run


def test_files_and_folders_are_coloured(run, call_main, tmp_path):
    """Broken if a result is missing, or has the wrong place, size or, with --whole, pixels."""
    photo = coloured(drawing(size=512, pen=20), 0).resize((600, 400))
    save(photo, tmp_path / "in" / "deep" / "a.webp", lossless=True)
    save(photo, tmp_path / "in" / "turned.jpg", **turned(6))
    (tmp_path / "in" / "notes.txt").write_text("text")
    done = call_main(COLOUR, "--run", "run", "--colour", "in", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "notes.txt" in done.stderr and "2 pictures coloured, 1 files left out" in done.stdout
    sizes = {path.stem: Image.open(path).size for path in (tmp_path / "out").rglob("*.png")}
    assert sizes == {"a": (384, 256), "turned": (256, 384)}
    assert (tmp_path / "out" / "deep" / "a.png").exists()
    flags = ["--colour", "in/deep/a.webp", "--whole", "--out", "whole"]
    done = call_main(COLOUR, "--run", "run", *flags)
    assert done.returncode == 0 and "whole/a.png  600x400" in done.stdout, done.stderr
    generator, _ = common.load_generator(run)
    sheet, borders = as_floats(tmp_path / "in/deep/a.webp"), [[0, 0], [56, 56], [84, 84], [0, 0]]
    padded = tf.pad(sheet, borders, "REFLECT")
    wanted = common.generate(generator, padded)[:, 56:-56, 84:-84]
    assert difference(as_floats(tmp_path / "whole" / "a.png"), wanted) < 0.01


MISTAKES = {
    "--colour gone": "--colour gone: No such file or directory",
    "--colour notes.txt": "--colour notes.txt: not a picture",
    "--colour empty": "--colour: no picture that can be used",
    "--colour a.png b/a.jpg": "a.png has the same result",
    "--colour a.png --out .": "a.png: exists already; give another --out",
    "--colour a.png --out . --force": "a.png: exists already",
    "--whole": "--whole: works only with --colour",
}


@pytest.mark.parametrize("flags", MISTAKES)
def test_mistakes(flags, run, refused, tmp_path):
    """Broken if a mistake is not reported in one line, or changes a file."""
    save(drawing(), tmp_path / "a.png")
    save(drawing(), tmp_path / "b" / "a.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("text")
    command = [COLOUR, "--run", "run", "--out", "new", *flags.split()]
    refused(*command, words=MISTAKES[flags], notes=("Warning: ", "usage: ", "  "))
