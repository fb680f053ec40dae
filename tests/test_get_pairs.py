"""Stage 7 turns users' files into pairs, and reports whatever it drops or changes."""

import csv
import functools
import http.server
import io
import random
import shlex
import tarfile
import threading
import unicodedata

import common

import pytest
import tensorflow as tf
from conftest import save, values
from PIL import Image, ImageDraw

GET = "07_get_pairs.py"


def photo(seed=0, size=(64, 64)):
    """A flat colour with a white rectangle; both differ from seed to seed."""
    dice = random.Random(seed)
    image = Image.new("RGB", size, tuple(dice.randrange(40, 200) for _ in range(3)))
    x, y = dice.randrange(size[0] // 2), dice.randrange(size[1] // 2)
    image.paste("white", (x, y, x + size[0] // 3, y + size[1] // 3))
    return image


def label_map(size=(64, 64), classes=(0, 1, 2, 255)):
    """A map of class numbers: a vertical stripe of each."""
    image = Image.new("L", size)
    for n, number in enumerate(classes):
        image.paste(number, (n * size[0] // len(classes), 0, *size))
    return image


def two_sides(folder, left, right=photo):
    """Writes four pictures into each of l/ and r/; the two functions make them from 0 to 3."""
    for n in range(4):
        save(left(n), folder / "l" / f"{n}.png")
        save(right(n), folder / "r" / f"{n}.png")


def colours_of(picture):
    codes = tf.cast(picture, tf.int32) @ [[65536], [256], [1]]
    return {int(code) for code in tf.unique(tf.reshape(codes, [-1])).y}


@pytest.fixture
def get(call_main, tmp_path):
    """Runs stage 7; returns what it said and the dataset's {split: {name: (left, right)}}."""

    def get(*flags):
        done = call_main(GET, *flags, "--out", "mine")
        assert done.returncode == 0, done.stderr
        pairs = {}
        for path in (tmp_path / "mine").glob("*/*.png"):
            pairs.setdefault(path.parent.name, {})[path.stem] = common.decode_pair(str(path))
        return done, pairs

    return get


@pytest.fixture
def refuses(refused):
    """Runs stage 7, which must refuse; warnings may come before its one line."""
    return functools.partial(refused, GET, notes=("Warning: ",))


LAYOUTS = {  # file names of the left and the right side, the arguments of --pair
    "case": ("l/IMG_{}.png", "r/img_{}.JPG", "l r"),
    "two endings": ("l/{}.jpg.png", "r/{}.jpg", "l r"),
    "sub-folders": ("l/x/{}.png", "r/x/{}.jpg", "l r"),
    "suffixes": ("one/{}_A.png", "one/{}_B.png", "one/*_A.png one/*_B.png"),
    "any extension": ("one/{}_A.png", "one/{}_B.jpg", "one/*_a.* one/*_b.*"),
    "scenes": ("s{}/depth/1.png", "s{}/color/1.jpg", "s*/depth/*.png s*/color/*.jpg"),
    "folders of scenes": ("s{}/depth/1.png", "s{}/color/1.jpg", "s*/depth s*/color"),
    "any depth": ("a/b{}/depth/1.png", "a/b{}/color/1.jpg", "**/depth/* **/color/*"),
    "one character": ("{}1.png", "{}2.png", "?1.png ?2.png"),
    "numbers behind a dot": ("l/a.{}.png", "r/b.{}.jpg", "l/a*.png r/b*.jpg"),
    "a line break": ("l/a\n{}.png", "r/a\n{}.jpg", "l r"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, get, tmp_path):
    """Broken if files that belong together are not found, or are paired with the wrong ones."""
    left, right, patterns = LAYOUTS[layout]
    for n in range(5):
        save(photo(n), tmp_path / left.format(n))
        save(photo(n + 50), tmp_path / right.format(n), quality=95)
    done, pairs = get("--pair", *patterns.split())
    assert "5 pairs made, 0 files left out." in done.stdout
    assert {split: len(files) for split, files in pairs.items()} == {"train": 4, "val": 1}
    for name, halves in (pairs["train"] | pairs["val"]).items():
        n = next(int(digit) for digit in name if digit.isdigit())
        for half, seed in zip(halves, (n, n + 50)):
            assert values(half, 63, 63) == pytest.approx(photo(seed).getpixel((63, 63)), abs=8)


SPLITS = {  # of the left and the right side, the arguments of --pair
    "training": ("l/training/ l/validation/", "r/train/ r/val/", "l r"),
    "trainA": ("c/trainA/ c/testA/", "c/trainB/ c/testB/", "c/*A c/*B"),
    "train/A": ("c/Train/A/ c/Valid/A/", "c/Train/B/ c/Valid/B/", "c/*/A c/*/B"),
    "trainannot": ("c/trainannot/ c/valannot/", "c/train/ c/val/", "c/*annot/*.png c/*/*.png"),
    "years": ("l/train2017/ l/val2017/", "r/train2017/ r/val2017/", "l r"),
    "in the names": ("l/train_ l/val_", "r/train_ r/val_", "l r"),
    "trainset": ("l/trainset/ l/testset/", "r/trainset/ r/testset/", "l r"),
}


@pytest.mark.parametrize("layout", SPLITS)
def test_given_splits_are_kept(layout, get, refuses, tmp_path):
    """Broken if given splits are not kept, or --seed is accepted though it has no effect."""
    *sides, patterns = SPLITS[layout]
    for k, side in enumerate(sides):
        for split, count in zip(side.split(), (3, 2)):
            for n in range(count):
                save(photo(n + 10 * k), tmp_path / f"{split}{n}.png")
    other = "test" if "test" in sides[0] else "val"
    refuses("--pair", *patterns.split(), "--seed", 1, "--out", "x", words="--val-share, --seed: ")
    _, pairs = get("--pair", *patterns.split())
    assert {split: len(files) for split, files in pairs.items()} == {"train": 3, other: 2}


@pytest.mark.parametrize("other, words", [("dev/", "say train,"), ("val_", "say train and val,")])
def test_half_a_split_is_told(other, words, get, tmp_path):
    """Broken if there is no warning when some pictures name a split and others do not."""
    for n, name in enumerate(("train/a", f"{other}b", "train/c", "x/d")):
        for side in "lr":
            save(photo(n), tmp_path / side / f"{name}.png")
    assert words in get("--pair", "l", "r")[0].stderr


def test_three_splits_and_what_lies_outside(get, tmp_path):
    """Broken if test/ is lost beside val/, or a file in no split is used or not reported."""
    for name in ("train/a", "val/b", "testing/c", "more/d", "e"):
        for side in "lr":
            save(photo(), tmp_path / side / f"{name}.png")
    done, pairs = get("--pair", "l", "r")
    assert {split: "".join(pairs[split]) for split in pairs} == dict(train="a", val="b", test="c")
    assert "not in train, val or test, as others are (2)" in done.stderr
    assert "3 pairs made, 2 files left out" in done.stdout


def test_the_share_of_validation_pairs(call_main, tmp_path):
    """Broken if val/ has the wrong share, other pairs with the same seed, or no pairs at all."""
    for n in range(10):
        save(photo(n), tmp_path / "p" / f"{n}.png")
    chosen = []
    for n, (flags, count) in enumerate((("", 2), ("--seed 1", 2), ("--val-share 0.5", 5), ("", 2))):
        assert call_main(GET, "--edges", "p", "--out", f"m{n}", *flags.split()).returncode == 0
        train, val = ({*(tmp_path / f"m{n}" / split).iterdir()} for split in ("train", "val"))
        assert (len(train), len(val)) == (10 - count, count)
        chosen.append({path.name for path in val})
    assert chosen[0] == chosen[3] != chosen[1]
    done = call_main(GET, "--edges", "p", "--out", "x", "--val-share", 0.01)
    assert done.returncode == 2 and "--val-share 0.01: 0 of 10 pairs would be in val" in done.stderr


def test_names_that_do_not_fit(refuses, tmp_path):
    """Broken if the error does not show names of both sides, or a pattern that fits them."""
    for n in range(4):
        save(photo(n), tmp_path / "r" / f"S_{n:04}.jpg")
        save(photo(n), tmp_path / "l" / f"S_{n:04}_seg.png")
        save(photo(n), tmp_path / "o" / f"{n}x{n}.png")
    words = "s_0000_seg, s_0001_seg and s_0000, s_0001"
    assert '"l/*_seg.*" "r/*.*"' in refuses("--pair", "l", "r", "--out", "x", words=words)[-1]
    lines = refuses("--pair", "l/*_seg.*", "o", "--out", "x", words="patterns whose stars match")
    assert "0x0, 1x1" in lines[-1]
    refuses("--pair", "r", "l/../r", "--out", "x", words="would be its own partner; give patterns")
    save(photo(), tmp_path / "r" / "S_0000.png")
    refuses("--pair", "l/*_seg.*", "r", "--out", "x", words="S_0000.png have the same name")


def test_unusable_files_are_named(get, tmp_path):
    """Broken if a dropped file is not named with its reason, or one bad file stops everything."""
    korean = unicodedata.normalize("NFD", "한글 사진")
    for name in ("a", "b", "c", korean, "wide", "lone"):
        save(photo(), tmp_path / "l" / f"{unicodedata.normalize('NFC', name)}.png")
        if name not in {"lone", "wide"}:
            save(photo(), tmp_path / "r" / f"{name}.webp", lossless=True)
    save(photo(size=(96, 64)), tmp_path / "r" / "wide.png")
    for side in "lr":
        save(photo(), tmp_path / side / ("d" * 150) / ("e" * 110 + ".png"))
    for name in ("notes.txt", ".hidden", "cut.jpg", "x.HEIC"):
        (tmp_path / "l" / name).write_bytes(b"text")
    done, pairs = get("--pair", "l", "r")
    assert {*pairs["train"], *pairs["val"]} == {"a", "b", "c", "한글 사진"}
    for reason, name in {
        "hidden": ".hidden",
        "not a picture that Pillow knows: save it as JPEG or PNG": "notes.txt",
        "without a partner in r": "lone.png",
        "proportions differ from its partner's (64x64, 96x64)": "wide.png",
        "the name is too long": "_eee",
    }.items():
        assert any(reason in line and name in line for line in done.stderr.splitlines()), reason
    assert "4 pairs made, 7 files left out (named above)." in done.stdout


def test_the_smaller_half_is_enlarged(get, tmp_path):
    """Broken if a target shrinks to its condition, labels are mixed, or pairs stay too large."""
    right = lambda n: photo(n, (64, 64) if n else (1800, 1800))  # noqa: E731
    two_sides(tmp_path, lambda n: label_map((32, 32)), right)
    done, pairs = get("--pair", "l", "r", "--labels")
    pairs = pairs["train"] | pairs["val"]
    assert pairs["1"][0].shape == pairs["1"][1].shape == (64, 64, 3)
    assert pairs["0"][1].shape == (600, 600, 3), "a third is enough for training at 256"
    assert all(len(colours_of(left)) == 4 for left, _ in pairs.values())


def test_one_range_for_all_files_of_a_side(get, tmp_path):
    """Broken if the files of a side do not share one range, or infinity is not reported."""
    for n in range(4):
        save(Image.new("I;16", (8, 8), 1000 * n + 95), tmp_path / "l" / f"{n}.png")
        save(Image.new("F", (8, 8), 512.0 * n - 1024), tmp_path / "r" / f"{n}.tif")
    save(Image.new("F", (8, 8), float("inf")), tmp_path / "r" / "9.tif")
    far = Image.linear_gradient("L").convert("F")
    far.putpixel((3, 3), -9999.0)
    save(far, tmp_path / "r" / "8.tif")
    save(Image.new("L", (8, 8), 85), tmp_path / "l" / "1b.png")
    save(Image.new("F", (8, 8), -512.0), tmp_path / "r" / "1b.tif")
    done, pairs = get("--pair", "l", "r")
    assert "holds NaN or infinity: replace them (1): r/9.tif" in done.stderr
    assert "-9999 is far from all other values: replace it if no data (1)" in done.stderr
    words = "95 to 3095 become 0 to 255 in the 4 of 5 files that have more than 8 bits"
    assert f"Range of l: {words}" in done.stdout
    assert common.describe_dataset("mine")["ranges"] == {"left": [95, 3095], "right": [-1024, 512]}
    for name, halves in (pairs["train"] | pairs["val"]).items():
        for half in halves:
            assert values(half, 4, 4) == pytest.approx([85 * int(name[0])] * 3, abs=1)


BLUE = [Image.new("L", (64, 64))] * 2 + [label_map(classes=range(3))]
FEW = {
    "4 gray levels, from 0 to 3": lambda n: label_map(classes=(0, 1, 2, 3)),
    "40 gray levels, from 0 to 39": lambda n: label_map(classes=range(40)),
    "32 gray levels, from 0 to 187": lambda n: label_map(classes=range(60 * n, 60 * n + 8)),
    "3 gray levels, from 0 to 2": lambda n: Image.merge("RGB", BLUE),
    "": lambda n: label_map(classes=(0, 255)),
}


@pytest.mark.parametrize("words", FEW)
def test_few_gray_levels(words, get, tmp_path):
    """Broken if there is no warning about targets of class numbers, which look nearly black."""
    two_sides(tmp_path, photo, FEW[words])
    said = get("--pair", "l", "r")[0].stderr
    assert (f"targets have {words}: brighten them, or" in said) if words else "levels" not in said


def test_white_on_transparent(get, tmp_path):
    """Broken if there is no warning about white drawings on transparent paper: they go blank."""
    image = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    image.paste("white", (9, 9, 30, 30))
    two_sides(tmp_path, lambda n: image)
    done, _ = get("--pair", "l", "r")
    assert "blank conditions, of gray level 255" in done.stderr and "(4): l/0.png" in done.stderr
    assert "unless they are class numbers (4): l/0.png" in done.stderr


def test_ready_pairs_of_any_kind(get, call_main, tmp_path):
    """Broken if --pair changes ready-made pairs when it converts them for training."""
    for n, kind in enumerate(["a.webp", "b.bmp", "c.tif", "d.png"]):
        image = Image.new("RGBA", (128, 64), (0, 0, 0, 0))
        image.paste(photo(n), (0, 0))
        save(image.convert("RGB" if kind == "b.bmp" else "RGBA"), tmp_path / "p" / "train" / kind)
        save(photo(n, (64, 64)), tmp_path / "p" / "val" / f"{n}.jpg")
    (tmp_path / "p" / "dataset.json").write_text('{"direction": "BtoA"}')
    done, pairs = get("--pair", "p")
    assert common.describe_dataset("mine")["direction"] == "BtoA", "as in p/dataset.json"
    assert [*map(len, (pairs["train"], pairs["val"]))] == [4, 4]
    assert values(pairs["train"]["d"][1], 9, 9) == [255, 255, 255], "on white"
    assert values(pairs["train"]["d"][0], 63, 63) == [*photo(3).getpixel((63, 63))]
    assert "probably not a pair, but split in half anyway (4)" in done.stderr
    assert call_main(GET, "--pair", "p/val", "--out", "again").returncode == 0
    assert common.describe_dataset("again")["direction"] == "BtoA", "as in the folder above val"


def test_class_numbers_get_colours(get, tmp_path):
    """Broken if a class changes its colour from map to map, 255 is lost, or names get mixed up."""
    two_sides(tmp_path, lambda n: label_map(classes=(0, 7, 255) if n else (7, 0)))
    (tmp_path / "p.csv").write_text("class,colour,name\n7,#00FF00,tree\n0,#000000,\n")
    done, pairs = get("--pair", "l", "r", "--labels", "p.csv")
    assert "not in the palette, and given other colours: 255" in done.stderr
    about = common.describe_dataset("mine")
    assert about["classes"] == [7, 0, 255] and about["condition"] == "labels"
    assert about["colours"] == [["#00ff00", "tree"], ["#000000", ""], ["#e0e0c0", ""]]
    left, _ = (pairs["train"] | pairs["val"])["0"]
    assert values(left, 9, 9) == [0, 255, 0] and values(left, 9, 60) == [0, 0, 0]
    with (tmp_path / "mine" / "labels.csv").open() as file:
        assert [row["pictures"] for row in csv.DictReader(file)] == ["4", "4", "3"]


def test_a_palette_mends_jpeg_and_soft_edges(get, call_main, refuses, tmp_path):
    """Broken if a palette does not repair JPEG maps, or the share of changed pixels is not told."""
    colours = [(220, 20, 60), (0, 0, 142), (70, 130, 180)]
    for n in range(4):
        image = Image.new("RGB", (256, 256))
        for k, colour in enumerate(colours * 4):
            x, y = k * 20, n * 20 + k * 9
            ImageDraw.Draw(image).ellipse([x, y, x + 70, y + 70], colour)
        save(image.resize((64, 64)), tmp_path / "l" / f"{n}.jpg", quality=75)
        save(photo(n), tmp_path / "r" / f"{n}.png")
    lines = refuses("--pair", "l", "r", "--labels", "--out", "x", words="0 classes; 1 to 256")
    assert "give --labels a palette (CSV)" in "".join(lines)
    rows = ["class,colour,name", "0,#000000,void", "1,#dc143c,a", "2,#00008e,b", "3,#4682b4,c"]
    (tmp_path / "p.csv").write_text("\n".join(rows))
    done, pairs = get("--pair", "l", "r", "--labels", "p.csv")
    assert "% of the label maps' pixels had other colours and get the nearest" in done.stdout
    for left, _ in (pairs["train"] | pairs["val"]).values():
        assert colours_of(left) <= {0, 0xDC143C, 0x8E, 0x4682B4}
    (tmp_path / "p.csv").write_text("\n".join(rows[:1] + rows[2:]))  # no colour for the background
    said = call_main(GET, "--pair", "l", "r", "--labels", "p.csv", "--out", "other").stderr
    assert "a tenth of it matches no colour of the CSV (4)" in said


ODD_MAPS = {  # what makes the maps, the palette, and the message
    "photographs": (photo, "p.csv", "Warning: 100.0% of the label maps' pixels had other colours"),
    "indices": (lambda n: photo(n).quantize(4), "p.csv", "left out, not the CSV's colours: add"),
    "numbers in one channel": (FEW["3 gray levels, from 0 to 2"], "", "--labels: one class, or"),
    "soft edges": (lambda n: label_map(classes=range(24)), "", "24 classes a map: if shades"),
    "a trimap": (lambda n: label_map(classes=(0, 128, 255)), "", "some colours are nearly equal"),
    "one class": (lambda n: Image.new("L", (64, 64), 3), "", "Warning: --labels: one class"),
    "gray.jpg": (lambda n: label_map(), "", "over 2 classes: a JPEG (export it as PNG), or a"),
}


@pytest.mark.parametrize("kind", ODD_MAPS)
def test_odd_label_maps_are_told(kind, call_main, tmp_path):
    """Broken if label maps that are photographs, nearly one class, or JPEG are not reported."""
    make, flag, words = ODD_MAPS[kind]
    two_sides(tmp_path, make)
    for path in (tmp_path / "l").iterdir() if "jpg" in kind else ():
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    (tmp_path / "p.csv").write_text("class,colour,name\n0,#000000,\n1,#dc143c,thing\n")
    command = f"--pair l r --out mine --labels {flag}".split()
    assert words in call_main(GET, *command).stderr


def test_indexed_files_of_the_palettes_colours(get, tmp_path):
    """Broken if the indices of a map's own palette are taken for class numbers."""
    image = Image.new("RGB", (64, 64), (0, 0, 142))
    image.paste((220, 20, 60), (0, 0, 40, 64))
    black = Image.new("P", (64, 64))
    black.putpalette([0, 0, 0, 220, 20, 60])
    two_sides(tmp_path, lambda n: image.quantize(4) if n else black)
    (tmp_path / "p.csv").write_text("class,colour,name\n0,#dc143c,b\n1,#00008e,a\n2,#000000,\n")
    _, pairs = get("--pair", "l", "r", "--labels", "p.csv")
    (left, _), (dark, _) = ((pairs["train"] | pairs["val"])[name] for name in "10")
    assert values(left, 9, 9) == [220, 20, 60] and values(left, 9, 60) == [0, 0, 142]
    assert values(dark, 9, 9) == [0, 0, 0], "its only index, 0, is the background's black"


def test_kinds_of_label_maps_are_not_mixed(get, call_main, refuses, tmp_path):
    """Broken if numbers and colours can be mixed, or a black map among coloured ones is refused."""
    red = Image.new("RGB", (64, 64))
    red.paste((200, 0, 0), (0, 0, 64, 32))
    two_sides(tmp_path, lambda n: red if n else Image.new("RGB", (64, 64)))
    done, pairs = get("--pair", "l", "r", "--labels")
    assert "nearly black" not in done.stderr
    assert common.describe_dataset("mine")["colours"] == [["#000000", ""], ["#c80000", ""]]
    save(Image.new("RGB", (64, 64), (80, 80, 80)), tmp_path / "l" / "0.png")
    (tmp_path / "p.csv").write_text("class,colour\n0,#505050\n1,#c80000\n2,#000000\n")
    command = "--pair l r --labels p.csv --out other"
    assert call_main(GET, *command.split()).returncode == 0
    save(label_map(), tmp_path / "l" / "0.png")
    words = "0.png has class numbers, but others have colours: make them of one kind"
    refuses("--pair", "l", "r", "--labels", "--out", "x", words=words)


def test_cityscapes(get, tmp_path):
    """Broken if the folders of Cityscapes are not found, or its classes change order or names."""
    road, car, sky = (128, 64, 128), (0, 0, 142), (70, 130, 180)
    for split, colour in (("train", car), ("val", sky)):
        image = Image.new("RGB", (64, 32), road)
        image.paste(colour, (32, 0, 64, 32))
        for kind, end in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_color")):
            save(image, tmp_path / "licensed" / kind / split / "ulm" / f"ulm_{split}_{end}.png")
    _, pairs = get("--import-cityscapes", "licensed")
    assert [*pairs["train"], *pairs["val"]] == ["ulm_ulm_train", "ulm_ulm_val"]
    assert pairs["train"]["ulm_ulm_train"][0].shape == (256, 256, 3)
    colours = common.describe_dataset("mine")["colours"]
    assert colours == [["#804080", "road"], ["#4682b4", "sky"], ["#00008e", "car"]]


def test_edges_by_hand(stage7):
    """Broken if a step in brightness is not drawn in black, or plain areas are not white."""
    step = tf.repeat(tf.where(tf.range(40) < 20, 50, 200)[tf.newaxis, :, tf.newaxis], 30, axis=0)
    sketch = stage7.draw_edges(tf.cast(tf.repeat(step, 3, axis=-1), tf.uint8))
    assert sketch.shape == (30, 40, 3) and sketch.dtype == tf.uint8
    row = values(sketch, 15, slice(None), 0)
    assert min(row[18:22]) == 0 and {*row[:15], *row[25:]} == {255} and row[:20] == row[20:][::-1]


def test_the_next_commands(get, call_main, tmp_path):
    """Broken if a command in the last lines of the output does not fit the new dataset."""
    for n in range(5):
        save(photo(n, (300, 200)), tmp_path / "photos" / f"{n}.jpg")
    done, pairs = get("--edges", "photos", "--size", "256x512")
    assert pairs["train"]["1"][0].shape == (256, 512, 3)
    assert common.describe_dataset("mine")["condition"] == "sketch"
    look, train = (shlex.split(line) for line in done.stdout.splitlines()[-2:])
    assert train[1:6] == ["05_pix2pix_train.py", "--dataset", "mine", "--size", "256x512"]
    assert call_main(*look[1:]).returncode == 0


def test_a_dataset_appears_when_it_is_complete(stage7, tmp_path):
    """Broken if an unfinished dataset already has its name, or a failure leaves files behind."""
    out = tmp_path / "mine"
    with pytest.raises(RuntimeError), stage7.new_dataset(out, {}) as folder:
        (folder / "half").touch()
        assert not out.exists()
        raise RuntimeError
    assert not [*tmp_path.iterdir()]
    with stage7.new_dataset(out, {"direction": "BtoA"}) as folder:
        (folder / "train").mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert {path.name for path in out.iterdir()} == {"train", "dataset.json"}


MISTAKES = {
    "--pair l gone --out x": "--pair gone: no such folder (gone), and no pattern with * or ?",
    "--pair l/*.jpg r --out x": "--pair l/*.jpg: fits no file; wildcards: * ? ** (of 4 in l)",
    "--pair l/[0-2].png r --out x": "no such folder (l/[0-2].png), and no pattern with * or ?",
    "--pair l/0* r/0* --out x": "0 of 1 pairs would be in val; use two or more pairs and e.g. 0.5",
    "--pair l r r --out x": "--pair, --edges: too many patterns; put them in quotes",
    "--edges l r --out x": "--pair, --edges: too many patterns; put them in quotes",
    "--pair l r": "--out: name a new folder, e.g. --out data/mine",
    "--pair l r --out .": "--out: name a new folder, e.g. --out data/mine",
    "--pair ~nouser/l r --out x": "--pair ~nouser/l: no such folder",
    "--pair l r --out l": "l: already exists",
    "--pair l r --labels bad.csv --out x": "bad.csv: needs columns class,colour,name (colour red",
    "--pair l r --labels empty.csv --out x": "empty.csv: needs columns class,colour,name (no class",
    "--pair l --labels --out x": "--labels: needs --pair with two folders",
    "--edges l --url http://x --out x": "--url: works only with --download",
    "--download facades --seed 1 --out x": "--val-share, --seed: work only with --pair or --edges",
    "--import-cityscapes l --out x": "no such folder (l/gtFine)",
    "--download facades --url none.tgz --out x": "none.tgz: No such file",
    "--download facades --url bad.csv --out x": "bad.csv: damaged, or not a .tar.gz",
}


@pytest.mark.parametrize("flags", MISTAKES)
def test_mistakes(flags, refuses, tmp_path):
    """Broken if a mistake is not reported in one line that names it, or leaves files behind."""
    two_sides(tmp_path, lambda n: label_map())
    (tmp_path / "bad.csv").write_text("class,colour\n1,red\n")
    (tmp_path / "empty.csv").write_text("")
    refuses(*flags.split(), words=MISTAKES[flags])


# === Downloads ===============================================================


def archive(*extra, count=3, cut=None, mode="RGB"):
    """A .tar.gz of facades/ as the paper's server has it; `extra`: (name, target) of links."""
    file, dice = io.BytesIO(), random.Random(0)
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        members = {"facades/README": dice.randbytes(20_000)}
        for n in range(2 * count):
            picture = io.BytesIO()
            photo(n, (32, 16)).convert(mode).save(picture, "PNG")
            members[f"facades/{'train' if n < count else 'val'}/{n}.png"] = picture.getvalue()[:cut]
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in extra:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE if target else tarfile.REGTYPE, target
            tar.addfile(member)
    return file.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.data`; `server.plan` has a fault for each request."""

    def do_GET(self):
        server, fault = self.server, self.server.plan.pop(0) if self.server.plan else {}
        asked = self.headers.get("Range")
        server.asked.append(asked)
        start = int(asked[6:-1]) if asked and server.ranges else 0
        if "status" in fault or start >= len(server.data):
            self.send_response(fault.get("status", 416))
            self.send_header("Content-Range", f"bytes */{len(server.data)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", fault.get("type", "application/gzip"))
        self.send_header("Content-Length", str(len(server.data) - start))
        self.end_headers()
        self.wfile.write(server.data[start : fault.get("cut", len(server.data))])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.plan, server.asked, server.ranges, server.data = [], [], True, archive()
        server.url = f"http://127.0.0.1:{server.server_port}/facades.tar.gz"
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_is_continued(ranges, server, call_main, tmp_path):
    """Broken if the same command does not continue the download, or damages the archive."""
    command = [GET, "--download", "facades", "--url", server.url, "--out", "data/f"]
    server.ranges, part = ranges, tmp_path / "data" / ".f.tar.gz.part"
    server.plan = [{"cut": 10_000}, {"status": 503}, {"type": "text/html"}]
    for problem in (f"got 10000 of {len(server.data)} bytes", "503", "sends a web page"):
        done = call_main(*command)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert problem in done.stderr and "run the same command again to continue" in done.stderr
        assert part.stat().st_size == 10_000 and [*part.parent.iterdir()] == [part]
    done = call_main(*command)
    assert done.returncode == 0, done.stderr
    assert server.asked == [None, *["bytes=10000-"] * 3]
    assert "data/f: 3 in train, 3 in val" in done.stdout
    assert {p.name for p in (tmp_path / "data" / "f").iterdir()} >= {"train", "val", "dataset.json"}
    assert not part.exists() and common.describe_dataset("data/f")["direction"] == "BtoA"
    done = call_main(*command)
    assert done.returncode == 0 and "is already there" in done.stdout and len(server.asked) == 4


def test_parts_of_earlier_tries(server, call_main, tmp_path):
    """Broken if a complete .part file is not used, or a wrong one blocks the download for good."""
    command = [GET, "--download", "facades", "--url", server.url, "--out", "f"]
    part = tmp_path / ".f.tar.gz.part"
    for data, tries in ((bytes(len(server.data) + 9), 2), (bytes(9), 2), (server.data, 1)):
        part.write_bytes(data)
        assert [call_main(*command).returncode for _ in range(tries)] == [2, 0][-tries:]
        (tmp_path / "f").rename(tmp_path / f"f{len(data)}")


TRAPS = {
    "cut": lambda: archive()[:-3000],
    "another checksum": lambda: archive()[:-8] + bytes(8),
    "a link": lambda: archive(("facades/train/x.png", "/etc/passwd")),
    "a path that leads outside": lambda: archive(("../../x.png", "")),
    "no pictures": lambda: archive(count=0),
    "a picture cut short": lambda: archive(cut=60),
    "what training refuses": lambda: archive(mode="RGBA"),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_archives_that_are_refused(trap, refuses, tmp_path):
    """Broken if a damaged or dangerous archive writes anything, or ends in a traceback."""
    (tmp_path / "a.tgz").write_bytes(TRAPS[trap]())
    refuses("--download", "facades", "--url", "a.tgz", "--out", "x", words="a.tgz: ")
