"""Pictures of one's own, as phones, scanners and label tools make them, from stage 7 to stage 6."""

import csv
import functools
import json
import math
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import common

import pytest
import tensorflow as tf
from PIL import Image, ImageDraw

HERE = Path(__file__).parent.parent
GET, TRAIN, COLOUR = "07_get_pairs.py", "05_pix2pix_train.py", "06_sketch_pad.py"
HEIC = b"\0\0\0\x18ftypheic" + bytes(100)
CLASSES = [0, 1, 2, 11, 255]


class SmallUNet(common.UNet):
    """The U-Net with a thirty-second of its filters: quick to make and to run."""

    def __init__(self, filters=64, **kwargs):
        super().__init__(filters // 32, **kwargs)


class SmallPatchGAN(common.PatchGAN):
    """The PatchGAN with a thirty-second of its filters."""

    def __init__(self, filters=64, **kwargs):
        super().__init__(filters // 32, **kwargs)


@pytest.fixture(autouse=True)
def small_networks(stage5, monkeypatch):
    for module in (common, stage5):
        monkeypatch.setattr(module, "UNet", SmallUNet)
    monkeypatch.setattr(stage5, "PatchGAN", SmallPatchGAN)


@pytest.fixture
def train(call_main, few_pairs, tmp_path):
    """Trains a run of two steps and returns its folder."""

    def train(name, *flags, dataset=few_pairs):
        once = ["--dataset", dataset, "--steps-per-epoch", 2, "--epochs", 1]
        done = call_main(TRAIN, *once, "--out", name, *flags)
        assert done.returncode == 0, done.stderr
        return tmp_path / name

    return train


def photo(width, height):
    """A gradient to the right and a red square at the top left, the size of a quarter of the height."""
    image = Image.linear_gradient("L").rotate(90).resize((width, height)).convert("RGB")
    image.paste("red", (0, 0, height // 4, height // 4))
    return image


def turned(image, orientation):
    """Returns the picture as a camera stores it that was held otherwise, and the EXIF block that says so."""
    undo = {
        1: None,
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    return image.transpose(undo[orientation]) if undo[orientation] is not None else image, {"exif": exif}


def label_map(width, height, classes=CLASSES):
    """A map of class numbers: a vertical stripe of each."""
    image = Image.new("L", (width, height))
    for n, number in enumerate(classes):
        image.paste(number, (n * width // len(classes), 0, width, height))
    return image


def sketch(width, height, pen):
    """A drawing of lines `pen` wide."""
    image = Image.new("L", (4 * width, 4 * height), 255)
    draw = ImageDraw.Draw(image)
    draw.ellipse((width, height, 3 * width, 3 * height), outline=0, width=4 * pen)
    draw.line((width // 2, height // 3, 3.5 * width, height), fill=0, width=4 * pen)
    draw.line((width, 3.4 * height, 3 * width, 3.6 * height), fill=0, width=4 * pen)
    return image.resize((width, height), Image.Resampling.BOX)


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def colours(picture):
    """Returns the set of colours of (..., 3) in [-1, 1], as "#rrggbb"."""
    rgb = tf.cast(tf.round((tf.reshape(picture, (-1, 3)) + 1.0) * 127.5), tf.int32)
    return {f"#{int(n):06x}" for n in tf.unique(tf.reduce_sum(rgb * [65536, 256, 1], axis=1)).y}


def make_folder(folder):
    """Photographs as they come, and maps for each that can be used; returns what cannot."""
    for orientation in (1, 3, 6, 8):
        image, options = turned(photo(400, 300), orientation)
        save(image, folder / "photos" / f"exif{orientation}.jpg", quality=95, **options)
    image, options = turned(photo(8160, 6120), 6)
    save(image, folder / "photos" / "large.jpg", **options)
    save(photo(640, 480), folder / "photos" / "web.webp", quality=95)
    save(photo(400, 300).convert("CMYK"), folder / "photos" / "print.jpg", quality=95)
    gray = photo(400, 300).convert("L").convert("I").point(lambda value: value * 257)
    save(gray.convert("I;16"), folder / "photos" / "scan.tif")
    save(gray.convert("I;16"), folder / "photos" / "scan16.png")
    save(photo(400, 300).convert("P"), folder / "photos" / "palette.png")
    clear = Image.new("RGBA", (400, 300), (0, 0, 0, 0))
    clear.paste(photo(400, 300).crop((0, 0, 200, 300)), (0, 0))
    save(clear, folder / "photos" / "clear.png")
    save(
        photo(400, 300),
        folder / "photos" / "still.gif",
        save_all=True,
        append_images=[photo(400, 300).rotate(180)],
    )
    save(photo(400, 300), folder / "photos" / "old.bmp")
    korean = unicodedata.normalize("NFD", "한글 사진")
    save(photo(400, 300), folder / "photos" / f"{korean}.png")
    save(photo(400, 300), folder / "photos" / "holiday" / "sea.png")
    names = [path.relative_to(folder / "photos") for path in (folder / "photos").rglob("*.*")]
    for name in names:
        composed = unicodedata.normalize("NFC", str(name.with_suffix(".png")))
        save(label_map(200, 150), folder / "maps" / composed)
    save(label_map(200, 200), folder / "maps" / "square.png")
    save(photo(400, 300), folder / "photos" / "square.png")
    bad = {"IMG_1.HEIC": HEIC, "empty.jpg": b"", "notes.txt": b"a text", ".DS_Store": b"x"}
    cut = (folder / "photos" / "exif1.jpg").read_bytes()
    bad["cut.jpg"] = cut[: len(cut) // 2]
    for name, data in bad.items():
        (folder / "photos" / name).write_bytes(data)
    save(label_map(200, 150), folder / "maps" / "cut.png")
    return sorted(bad), len(names)


@pytest.mark.slow
def test_a_folder_from_a_phone(call_main, train, tmp_path):
    """Broken if a file as people have it is neither used nor named, from stage 7 to 3, 5 and 6."""
    bad, good = make_folder(tmp_path)
    assert good >= 14
    flags = ["--pair", "maps", "photos", "--labels", "--out", "mine"]
    done = call_main(GET, *flags)
    assert done.returncode == 0, done.stderr
    lines = {
        "HEIC: save it as JPEG": "photos/IMG_1.HEIC",
        "empty: copy it again": "photos/empty.jpg",
        "not a picture": "photos/notes.txt",
        "hidden": "photos/.DS_Store",
        "damaged (image file is truncated": "photos/cut.jpg",
        "of other proportions than its partner (200x200, 400x300)": "maps/square.png",
    }
    for reason, path in lines.items():
        assert [line for line in done.stderr.splitlines() if reason in line and line.endswith(path)], reason
    assert f"{good} pairs made, {len(bad) + 1} files left out (named above)." in done.stdout
    pairs = common.find_pairs(tmp_path / "mine")
    files = {Path(path).stem: path for path in pairs["train"] + pairs["val"]}
    assert len(files) == good and {"한글 사진", "holiday_sea"} <= files.keys()
    for name, path in files.items():
        left, right = common.decode_pair(path)
        if name != "large":
            assert left.shape == (150, 200, 3), name
        height, width = right.shape[:2]
        corner, left_edge, right_edge = (
            [int(v) for v in right[y, x]]
            for y, x in ((height // 8, width // 12), (height - 9, 9), (height - 9, width - 9))
        )
        gray = name.startswith("scan")
        assert gray or corner[0] > 200 and corner[1] < 90, f"{name} is not upright: {corner}"
        assert max(left_edge) < 60 and min(right_edge) > 195, f"{name}: {left_edge}, {right_edge}"
    about = common.describe_dataset(tmp_path / "mine")
    assert about["condition"] == "labels" and about["classes"] == CLASSES
    with (tmp_path / "mine" / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["0", "1", "2", "11", "255"]
    assert {row["pictures"] for row in rows} == {str(good)}
    assert Image.open(tmp_path / "mine" / "labels.png").size[0] > 100

    done = call_main("03_pix2pix_data.py", "--dataset", "mine")
    assert done.returncode == 0 and "Conditions: labels" in done.stdout, done.stderr
    run = train("run", dataset="mine")
    conditions = json.loads((run / "options.json").read_text())["data"]["condition"]
    assert conditions["kind"] == "labels" and conditions["line_width"] is None
    assert conditions["colours"] == about["colours"] and conditions["colours"][0] == ["#000000", ""]
    shutil.copy(tmp_path / "photos" / "IMG_1.HEIC", tmp_path / "maps")
    done = call_main(COLOUR, "--run", "run", "--colour", "maps", "--out", "coloured")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [line for line in done.stderr.splitlines() if "IMG_1.HEIC" in line]
    assert f"{good + 2} pictures coloured, 1 files left out (named above)." in done.stdout
    assert Image.open(tmp_path / "coloured" / "holiday" / "sea.png").size == (341, 256)
    done = call_main(COLOUR, "--run", "run", "--colour", "photos", "--out", "strange")
    assert re.search(r"photos/exif1.jpg: \d\d% of it has no colour of the label maps", done.stderr)


@pytest.mark.parametrize("augment", list(common.AUGMENTATIONS))
def test_labels_are_never_mixed(call_main, stage5, augment, tmp_path):
    """Broken if a colour comes up, in training or validation, that no class has."""
    for name in "abcdef":
        save(label_map(300, 200), tmp_path / "maps" / f"{name}.png")
        save(photo(300, 200), tmp_path / "photos" / f"{name}.png")
    done = call_main(GET, "--pair", "maps", "photos", "--labels", "--out", "mine")
    assert done.returncode == 0, done.stderr
    pairs = common.find_pairs("mine")
    palette = {colour for colour, _ in common.describe_dataset("mine")["colours"]}
    span = {"batch_size": 1, "seed": 0, "first_step": 0, "last_step": 10}
    batches = common.training_pairs(pairs["train"], **span, direction="AtoB", augment=augment, labels=True)
    seen = set().union(*(colours(condition) for condition, _ in batches))
    white = {"#ffffff"} if augment == "course" else set()  # its border
    assert seen - white == palette - white
    for condition, _ in stage5.validation_pairs(pairs["val"], "AtoB", labels=True):
        assert colours(condition) == palette
    mixed = common.training_pairs(pairs["train"], **span, direction="AtoB", augment=augment)
    assert len(colours(next(iter(mixed))[0])) > len(palette), "the test could not tell"


@pytest.mark.parametrize("pen", [3, 9])
def test_line_width(call_main, stage5, pen, tmp_path):
    """Broken if a run does not know how wide its sketches' lines are, in pixels of 256."""
    for n, name in enumerate("abcdef"):
        save(sketch(512, 512 - 20 * n, 2 * pen), tmp_path / "sketches" / f"{name}.png")
        save(photo(512, 512 - 20 * n), tmp_path / "photos" / f"{name}.png")
    done = call_main(GET, "--pair", "sketches", "photos", "--out", "mine")
    assert done.returncode == 0 and "Conditions: sketch" in done.stdout, done.stderr
    conditions = stage5.describe_conditions("mine", common.find_pairs("mine")["train"], "AtoB")
    assert conditions["line_width"] == pytest.approx(pen, rel=0.12) and conditions["colours"] == []


def test_line_width_of_the_embedded_pairs(stage5):
    """Broken if filled shapes count as wide lines: OpenMoji's are 2 of 72, which is 7.1 of 256."""
    found = stage5.describe_conditions("openmoji", common.find_pairs("openmoji")["train"], "AtoB")
    assert found["kind"] == "sketch" and found["line_width"] == pytest.approx(7.1, abs=0.4)


@pytest.fixture
def described_run(make_run):
    """Makes a run that says what its conditions are, without training."""
    return functools.partial(describe, make_run)


def describe(make_run, folder, **condition):
    run = make_run(folder, SmallUNet())
    options = json.loads((run / "options.json").read_text())
    options["data"]["condition"] = {"kind": "sketch", "line_width": 7.0, "colours": []} | condition
    (run / "options.json").write_text(json.dumps(options))
    return run


def test_a_wide_label_map(call_main, stage6, described_run, tmp_path):
    """Broken if stage 6 cuts a map of 2048x1024 in half, mixes its colours, or returns a square."""
    palette = [["#000000", "road"], ["#ff0000", "car"], ["#00ff00", ""], ["#0000ff", ""], ["#ffffff", ""]]
    labels = {"kind": "labels", "line_width": None, "colours": palette, "classes": CLASSES}
    sized = labels | {"size": (256, 256)}
    run = described_run(tmp_path / "run", **labels)
    save(label_map(2048, 1024), tmp_path / "wide.png")
    sheet, size = stage6.read_condition(str(tmp_path / "wide.png"), sized, as_is=False)
    assert size == (2048, 1024) and colours(sheet) == {colour for colour, _ in palette}
    for n, (colour, _) in enumerate(palette):
        assert colours(sheet[0, 128, round(51.2 * n + 25)]) == {colour}
    in_colours = Image.new("RGB", (2048, 1024))
    for n, (colour, _) in enumerate(palette):
        in_colours.paste(colour, (n * 2048 // 5, 0, 2048, 1024))
    save(in_colours, tmp_path / "colours.png")
    assert colours(stage6.read_condition(str(tmp_path / "colours.png"), sized, False)[0] - sheet - 1) == {
        "#000000"
    }
    done = call_main(COLOUR, "--run", run, "--colour", "wide.png", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "out" / "wide.png").size == (512, 256)
    save(label_map(200, 100, [0, 7]), tmp_path / "other.png")
    done = call_main(COLOUR, "--run", run, "--colour", "other.png", "--out", "out")
    assert done.returncode == 2 and done.stderr.endswith("classes that the run was not trained on: 7\n")


def test_files_are_treated_as_their_run_says(stage6, tmp_path):
    """Broken if photographs or label maps are cleaned, files cut, or lines widened to another run's pen."""
    save(photo(400, 200), tmp_path / "photo.png")
    picture = {"kind": "picture", "size": (256, 256), "line_width": None, "colours": []}
    sheet, size = stage6.read_condition(str(tmp_path / "photo.png"), picture, as_is=False)
    wanted = common.resize(
        tf.cast(common.decode_picture(str(tmp_path / "photo.png")), tf.float32) / 127.5 - 1
    )
    assert size == (400, 200) and float(tf.reduce_max(tf.abs(sheet[0] - wanted))) < 1e-5
    save(sketch(512, 512, 4), tmp_path / "thin.png")
    for wide in (7.0, 14.0):
        conditions = {"kind": "sketch", "size": (256, 256), "line_width": wide, "colours": []}
        sheet, _ = stage6.read_condition(str(tmp_path / "thin.png"), conditions, as_is=False)
        assert common.line_width([sheet[0, ..., :1] / 2 + 0.5]) == pytest.approx(wide, rel=0.15)
    sheet, _ = stage6.read_condition(str(tmp_path / "thin.png"), conditions, as_is=True)
    assert common.line_width([sheet[0, ..., :1] / 2 + 0.5]) == pytest.approx(2.0, abs=0.5)


def test_halves_of_unequal_size(call_main, tmp_path):
    """Broken if halves do not get the smaller one's size, or sub-folders and train/ and val/ get lost."""
    for split, name in (("train", "a"), ("train", "b"), ("val", "c"), ("val/deep", "d")):
        save(sketch(300, 150, 3), tmp_path / "left" / split / f"{name}.png")
        save(photo(1001, 500), tmp_path / "right" / split / f"{name}.jpg")
    save(photo(300, 157), tmp_path / "right" / "train" / "b.jpg")  # 4.5% higher
    for side in ("left", "right"):
        save(photo(300, 150), tmp_path / side / "loose.png")
    done = call_main(GET, "--pair", "left", "right", "--out", "mine")
    assert done.returncode == 0, done.stderr
    found = {str(p.relative_to(tmp_path / "mine")) for p in (tmp_path / "mine").rglob("*.png")}
    assert found == {"train/a.png", "val/c.png", "val/deep_d.png"}
    assert "(300x150, 300x157): crop one: left/train/b.png" in done.stderr
    assert "neither in train/ nor in val/, which other pictures are in: left/loose.png" in done.stderr
    left, right = common.decode_pair(str(tmp_path / "mine" / "val" / "deep_d.png"))
    assert left.shape == right.shape == (150, 300, 3)


def test_palettes(call_main, stage7, tmp_path):
    """Broken if a palette's own colours, or those of a file, are not used, or new ones are near."""
    own = label_map(64, 64, [0, 1, 2])
    own.putpalette([10, 20, 30, 200, 100, 0, 0, 0, 250])
    for name in "abcdef":
        save(own, tmp_path / "own" / f"{name}.png")
        save(
            label_map(64, 64, [0, 1, 300 if name == "a" else 7]).convert("I;16"),
            tmp_path / "deep" / f"{name}.png",
        )
        save(label_map(64, 64, [0, 3, 7]).convert("RGB"), tmp_path / "gray" / f"{name}.png")
        save(photo(64, 64), tmp_path / "photos" / f"{name}.png")
    (tmp_path / "names.csv").write_text("class,colour,name\n0,#101010,sky\n1,#FF00FF,tree\n")
    about = {}
    for kind, extra in (("own", []), ("deep", ["names.csv"]), ("gray", [])):
        done = call_main(GET, "--pair", kind, "photos", "--labels", *extra, "--out", f"data/{kind}")
        assert done.returncode == 0, done.stderr
        about[kind] = common.describe_dataset(tmp_path / "data" / kind)
    assert about["own"]["colours"] == [["#0000fa", ""], ["#0a141e", ""], ["#c86400", ""]]
    assert "classes" not in about["own"]
    assert about["deep"]["colours"][:2] == [["#101010", "sky"], ["#ff00ff", "tree"]]
    assert about["gray"]["classes"] == [0, 3, 7]
    left, _ = common.decode_pair(common.find_pairs(tmp_path / "data" / "gray")["val"][0])
    assert len(colours(tf.cast(left, tf.float32) / 127.5 - 1)) == 3
    done = call_main(
        GET, "--pair", "gray", "photos", "--labels", "data/deep/labels.csv", "--out", "data/again"
    )
    assert (
        done.returncode == 0 and "tree" not in done.stdout.split("pictures  name")[1].split("0 files")[0][40:]
    ), done.stdout
    chosen = [tuple(bytes.fromhex(colour[1:])) for colour in stage7.far_colours(12)]
    assert min(math.dist(a, b) for n, a in enumerate(chosen) for b in chosen[:n]) > 120
    assert len(set(stage7.far_colours(256))) == 256


@pytest.fixture
def first(stage5, make_run, tmp_path):
    """A run of two steps, as stage 5 leaves it: weights, a checkpoint of all variables, metrics.csv."""
    common.keras.utils.set_random_seed(5)
    model = stage5.Pix2Pix()
    model.set_optimizers(common.adam(2e-4, 0.5), common.adam(2e-4, 0.5))
    for variable in model.variables:
        if variable.dtype == "float32":  # no value that another run could have by chance
            variable.assign_add(tf.random.stateless_uniform(variable.shape, (0, 7), 0.001, 0.002))
    run = make_run(tmp_path / "first", model.generator, flags={"--filters": 64, "--size": "256x256"})
    for optimizer in (model.generator_optimizer, model.discriminator_optimizer):
        optimizer.iterations.assign(2)
    common.Checkpoints(run, model.state()).save(2)
    return run


@pytest.mark.slow
def test_start_from(first, call_main, stage5, few_pairs, tmp_path, monkeypatch):  # noqa: PLR0917
    """Broken if a run does not begin with the weights of another, keeps its optimisers, or needs it later.

    The new run is stopped where its training would begin, with its first checkpoint.
    """
    begun = []

    def train(model, run, *rest, **named):
        step = common.Checkpoints(run, model.state()).restore()
        weights = {name: getattr(model, name).weights for name in ("generator", "discriminator")}
        begun.append({name: [tf.identity(v) for v in values] for name, values in weights.items()})
        begun[-1]["steps"] = step, int(model.generator_optimizer.iterations)
        raise common.UserError("far enough")

    monkeypatch.setattr(common, "train", train)
    command = [TRAIN, "--dataset", few_pairs, "--out", "second", "--start-from", "first", "--seed", 1]
    assert "far enough" in call_main(*command).stderr
    model, record = stage5.load_networks(first)
    assert record == {"run": str(first), "epochs": 1, "networks": ["generator", "discriminator"]}
    for name in record["networks"]:
        for ours, theirs in zip(begun[0][name], getattr(model, name).weights, strict=True):
            assert float(tf.reduce_max(tf.abs(ours - theirs))) == 0, name
    assert begun[0]["steps"] == (0, 0)
    options = json.loads((tmp_path / "second" / "options.json").read_text())
    assert options["flags"]["--start-from"] == "first"
    assert options["data"]["started from"] == {"run": "first", "epochs": 1, "networks": record["networks"]}
    generator = common.load_generator(first)[0]
    shutil.rmtree(first / "saved")
    model, record = stage5.load_networks(first)
    assert record["networks"] == ["generator"]
    assert all(bool(tf.reduce_all(a == b)) for a, b in zip(model.generator.weights, generator.weights))
    shutil.rmtree(first)
    done = call_main(*command)
    assert "far enough" in done.stderr, "the earlier run is needed to go on"
    for ours, theirs in zip(begun[0]["generator"], begun[1]["generator"], strict=True):
        assert bool(tf.reduce_all(ours == theirs))


@pytest.mark.slow
def test_mistakes_of_start_from(first, call_main, stage5, few_pairs, tmp_path, monkeypatch):  # noqa: PLR0917
    """Broken if a run that cannot be started from is not told in one line, or the new one is begun."""

    def damage():
        (shard,) = (tmp_path / "run" / "saved" / "step_00000002").glob("*.data*")
        shard.write_bytes(b"x" * shard.stat().st_size)

    class OtherUNet(common.UNet.__mro__[1]):
        def __init__(self, filters=64, **kwargs):
            super().__init__(filters // 32, **kwargs)
            self.encoder[0].conv.filters = 3

    def no_weights():
        shutil.rmtree(tmp_path / "run" / "saved")
        (tmp_path / "run" / "generator.weights.h5").write_text("x")

    mistakes = {
        "no trained run there": lambda: shutil.rmtree(tmp_path / "run"),
        "step_00000002 is damaged": damage,
        "generator.weights.h5: damaged": no_weights,
        "its first epoch has not ended": (tmp_path / "run" / "metrics.csv").unlink,
        "networks of another architecture": lambda: monkeypatch.setattr(stage5, "UNet", OtherUNet),
    }
    for message, spoil in mistakes.items():
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(tmp_path / "first", tmp_path / "run")
        spoil()
        done = call_main(TRAIN, "--dataset", few_pairs, "--start-from", "run", "--out", "new")
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert message in done.stderr and not (tmp_path / "new").exists()
    done = call_main(TRAIN, "--dataset", few_pairs, "--start-from", "first", "--out", "first")
    assert done.returncode == 2 and "give the new run another --out" in done.stderr


def test_wrong_input(call_main, described_run, few_pairs, tmp_path):
    """Broken if wrong input for the new flags is not told in one line, or leaves anything behind."""
    described_run(tmp_path / "run")
    for name in "abc":
        save(label_map(60, 40), tmp_path / "maps" / f"{name}.png")
        save(photo(60, 40), tmp_path / "photos" / f"{name}.png")
        save(
            label_map(60, 40).convert("RGB") if name == "a" else label_map(60, 40),
            tmp_path / "both" / f"{name}.png",
        )
    files = {"bad.csv": "class,colour\n1,red\n", "empty.csv": "", "cut.jpg": "x"}
    files |= {"odd/dataset.json": '{"condition": "map"}', "torn/dataset.json": "{"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for split in ("train", "val"):
        for folder in ("odd", "torn"):
            shutil.copytree(few_pairs / split, tmp_path / folder / split)
        for folder in ("kept/a", "kept/b"):
            save(photo(60, 40), tmp_path / folder / split / "a.png")
    before = sorted(tmp_path.rglob("*"))
    pair = [GET, "--out", "new", "--pair", "maps", "photos"]
    mistakes = [
        (
            [*pair, "--labels", "bad.csv"],
            "--labels bad.csv: a CSV file with class,colour,name is needed (colour red",
        ),
        ([*pair, "--labels", "empty.csv"], "--labels empty.csv: no class in it"),
        ([*pair, "--labels", "none.csv"], "none.csv: No such file"),
        ([GET, "--edges", "photos", "--labels", "--out", "new"], "--labels: goes with --pair only"),
        (
            [GET, "--pair", "both", "photos", "--labels", "--out", "new"],
            "both/b.png has class numbers, both/a.png has",
        ),
        (
            [GET, "--pair", "kept/a", "kept/b", "--seed", 1, "--out", "new"],
            "--seed: the pictures lie in train/ and val/",
        ),
        ([GET, "--pair", "maps", "gone", "--out", "new"], "--pair gone: no such folder"),
        (
            [TRAIN, "--dataset", "odd", "--out", "new"],
            "dataset.json: cannot be used (condition: sketch, labels",
        ),
        ([TRAIN, "--dataset", "torn", "--out", "new"], "dataset.json: cannot be used"),
        ([TRAIN, "--start-from", "gone", "--out", "new"], "gone: no trained run there"),
        ([COLOUR, "--run", "run", "--pairs", "--out", "new"], "--pairs: goes with --colour only"),
        ([COLOUR, "--run", "run", "--colour", "cut.jpg", "--out", "new"], "--colour cut.jpg: not a picture"),
        ([COLOUR, "--run", "gone", "--colour", "photos", "--out", "new"], "gone: no trained run there"),
    ]
    for command, message in mistakes:
        done = call_main(*command)
        assert done.returncode == 2 and message in done.stderr.splitlines()[-1], done.stderr
        assert len([line for line in done.stderr.splitlines() if "error" in line]) == 1
        assert "Traceback" not in done.stderr
        assert sorted(tmp_path.rglob("*")) == before, message


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_memory(kind, tmp_path):
    """Broken if a folder of 50-megapixel pictures takes a gigabyte."""
    image, options = turned(photo(8160, 6120), 6)
    for n in range(4):
        save(
            image,
            tmp_path / "photos" / f"{n}.{kind}",
            **(options if kind == "jpg" else {"compress_level": 1}),
        )
    # Started by a small process: what a large one starts would begin with its peak.
    start = "import os, sys; pid = os.posix_spawn(sys.executable, sys.argv[1:], os.environ); "
    start += "_, status, usage = os.wait4(pid, 0); print(status, usage.ru_maxrss)"
    script = [sys.executable, HERE / GET, "--edges", tmp_path / "photos", "--out", tmp_path / "mine"]
    command = [sys.executable, "-c", start, *map(str, script)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    status, peak = map(int, done.stdout.split()[-2:])
    assert status == 0 and peak < 1_000_000  # kB
