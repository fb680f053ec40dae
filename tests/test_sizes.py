"""Other sizes and widths than the paper's, from the flags to the page, and whole pictures."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import common

import pytest
import tensorflow as tf
from PIL import Image, ImageDraw
from test_sketch_pad import ask, png, serving

HERE = Path(__file__).parent.parent
TRAIN, COLOUR, EXPORT, GET = "05_pix2pix_train.py", "06_sketch_pad.py", "08_export.py", "07_get_pairs.py"
HIGH = (512, 256)


def as_floats(path):
    """Returns a picture file as (1, height, width, 3) in [-1, 1]."""
    return tf.cast(common.decode_picture(str(path)), tf.float32)[tf.newaxis] / 127.5 - 1.0


def largest_difference(one, other):
    return float(tf.reduce_max(tf.abs(one - other)))


@pytest.fixture(scope="module")
def untrained(make_run, tmp_path_factory):
    """Makes the folder of an untrained run of narrow networks, of a size, with what its conditions are."""
    folder = tmp_path_factory.mktemp("untrained")

    def make(name, size="256x256", filters=2, **condition):
        common.keras.utils.set_random_seed(0)
        run = make_run(folder / name, common.UNet(filters), flags={"--size": size, "--filters": filters})
        options = json.loads((run / "options.json").read_text())
        options["data"]["condition"] = {"kind": "picture", "line_width": None, "colours": []} | condition
        (run / "options.json").write_text(json.dumps(options))
        return run

    return make


@pytest.mark.slow
def test_the_pad_of_another_size(stage6, untrained, few_pairs, call_main):
    """Broken if the pad of a run of 512x256 has a sheet, an example or a file of another size."""
    run = untrained("high", "512x256")
    square = untrained("square")
    with serving(stage6.Pad([stage6.load_run(run)])) as pad:
        assert json.loads(ask(pad, "about")[2])["size"] == [512, 256]
        pair = common.decode_data(ask(pad, "example")[2])
        assert pair.shape == (512, 512, 3)
        sheet = pair[:, :256]
        status, _, body = ask(pad, "colour", png(sheet))
        assert status == 200
        sheet = tf.cast(sheet, tf.float32)[tf.newaxis] / 127.5 - 1.0
        wanted = common.generate(common.load_generator(run)[0], sheet)
        picture = tf.cast(common.decode_data(body), tf.float32)[tf.newaxis] / 127.5 - 1.0
        assert largest_difference(picture, wanted) < 0.01
        status, _, message = ask(pad, "colour", png(pair[:256]))
        assert (status, message) == (400, b"a sheet is 512 high and 256 wide")
        assert common.decode_data(ask(pad, "open", png(pair[:100]))[2]).shape == (512, 256, 3)
    done = call_main(COLOUR, "--run", run, square, "--port", 0, "--no-browser")
    assert done.returncode == 2 and done.stderr.endswith("they are of different --size\n")
    assert len(done.stderr.splitlines()) == 1


def test_pixels_of_lines(stage5, stage6, untrained, few_pairs):
    """Broken if lines are taken for as wide as at 256 where a run has twice the pixels."""
    paths = common.find_pairs(few_pairs)["train"]
    widths = [stage5.describe_conditions(few_pairs, paths, "AtoB", (n, n))["line_width"] for n in (256, 512)]
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.05)
    condition = stage6.condition_of(untrained("sketches", "512x512", kind="sketch"))
    assert condition["line_width"] == 2 * stage6.BRUSH


def test_whole_by_hand(stage6):
    """Broken if a side is not continued by its reflection, or a small picture cannot be."""
    rows = tf.reshape(tf.range(300), (1, 300, 1, 1))
    mirrored = [int(n) for n in stage6.mirror_sides(rows, axis=1)[0, :, 0, 0]]
    assert mirrored == [*range(106, 0, -1), *range(300), *range(298, 192, -1)]
    assert stage6.mirror_sides(rows[:, :256], axis=1).shape[1] == 256
    few = [int(n) for n in stage6.mirror_sides(rows[:, :3], axis=1)[0, :, 0, 0]]
    assert len(few) == 256 and few[124:131] == [2, 1, 0, 1, 2, 1, 0]
    assert {int(n) for n in tf.reshape(stage6.mirror_sides(rows[:, :1], axis=1), [-1])} == {0}


@pytest.mark.slow
def test_whole_pictures(call_main, stage6, untrained, tmp_path):
    """Broken if --whole changes a picture's size, squashes it, leaves it turned, or mirrors it wrong."""
    run, folder = untrained("whole"), tmp_path / "in"
    folder.mkdir()
    image = Image.effect_noise((1500, 1000), 80).convert("RGB")
    image.paste("red", (0, 0, 500, 500))
    image.save(folder / "photo.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "turned.jpg", exif=exif)
    for size in ((1, 1), (3, 200), (256, 256)):
        image.resize(size).save(folder / "{}x{}.png".format(*size))
    done = call_main(COLOUR, "--run", run, "--colour", "in", "--whole", "--out", "out")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("out/photo.png")]
    assert "1500x1000: " in line and " s, " in line and "GB of memory" in line
    sizes = {path.name: Image.open(path).size for path in (tmp_path / "out").iterdir()}
    assert sizes.pop("photo.png") == (1500, 1000) and sizes.pop("turned.png") == (1000, 1500)
    assert sizes == {"1x1.png": (1, 1), "3x200.png": (3, 200), "256x256.png": (256, 256)}
    generator = common.load_generator(run)[0]
    sheet = as_floats(folder / "photo.png")
    padded = tf.pad(sheet, [[0, 0], [12, 12], [18, 18], [0, 0]], "REFLECT")
    wanted = common.generate(generator, padded)[:, 12:-12, 18:-18]
    assert largest_difference(as_floats(tmp_path / "out" / "photo.png"), wanted) < 0.01
    call_main(COLOUR, "--run", run, "--colour", folder / "256x256.png", "--out", "squashed")
    same = as_floats(tmp_path / "squashed" / "256x256.png"), as_floats(tmp_path / "out" / "256x256.png")
    assert largest_difference(*same) < 0.01


@pytest.mark.slow
def test_whole_conditions(stage6, few_pairs, tmp_path):
    """Broken if labels of a whole picture are mixed, or a sketch is not cleaned in its own size."""
    palette = [["#000000", "road"], ["#ff0000", "car"]]
    labels = {"kind": "labels", "size": (256, 256), "line_width": None, "colours": palette, "classes": [0, 7]}
    image = Image.new("L", (1300, 1200))
    image.paste(7, (651, 0, 1300, 1200))
    image.save(tmp_path / "map.png")
    sheet, size = stage6.read_condition(str(tmp_path / "map.png"), labels, False, whole=True)
    assert size == (1300, 1200) and sheet.shape == (1, 1200, 1300, 3)
    assert float(sheet[0, 600, 650, 0]) == -1 and float(sheet[0, 600, 651, 0]) == 1

    left, _ = common.decode_pair(common.find_pairs(few_pairs)["val"][0])
    paper = tf.image.resize(tf.cast(left, tf.float32), (1200, 1200)) * 0.7 * tf.constant([1.0, 0.97, 0.88])
    tf.io.write_file(str(tmp_path / "paper.png"), tf.io.encode_png(tf.cast(paper, tf.uint8)))
    sketch = {"kind": "sketch", "size": (256, 256), "line_width": 7.0, "colours": []}
    sheet, _ = stage6.read_condition(str(tmp_path / "paper.png"), sketch, False, whole=True)
    assert sheet.shape == (1, 1200, 1200, 3) and float(tf.reduce_max(sheet)) == 1.0
    wanted = tf.image.resize(tf.cast(left, tf.float32) / 127.5 - 1.0, (1200, 1200))
    assert float(tf.reduce_mean(tf.abs(sheet[0] - wanted))) < 0.02
    thin = Image.new("L", (1200, 1200), 255)
    ImageDraw.Draw(thin).ellipse((200, 200, 1000, 1000), outline=0, width=3)
    thin.save(tmp_path / "thin.png")
    sheet, _ = stage6.read_condition(str(tmp_path / "thin.png"), sketch, False, whole=True)
    assert common.line_width([sheet[0, ..., :1] / 2 + 0.5]) == pytest.approx(7, rel=0.2)
    pair = common.find_pairs(few_pairs)["val"][0]
    sheet, size = stage6.read_half(pair, sketch, "AtoB", whole=True)
    assert size == (256, 256) and largest_difference(sheet, tf.cast(left, tf.float32) / 127.5 - 1.0) < 1e-5


def test_whole_too_large(call_main, stage6, untrained, tmp_path, monkeypatch):
    """Broken if a picture that does not fit into memory is tried, or keeps the others from being coloured."""
    run = untrained("large", filters=3)
    (tmp_path / "in").mkdir()
    Image.new("1", (2000, 1000)).save(tmp_path / "in" / "large.png")
    Image.new("RGB", (300, 300)).save(tmp_path / "in" / "small.png")
    monkeypatch.setattr(common, "free_memory", lambda: 1.2e9)
    flags = ["--run", run, "--out", "out", "--whole"]
    done = call_main(COLOUR, *flags, "--colour", "in")
    assert done.returncode == 0 and "too large: 2000x1000 would take 1.4 GB" in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].endswith("in/large.png") and (tmp_path / "out" / "small.png").exists()
    shutil.rmtree(tmp_path / "out")
    tried = []
    monkeypatch.setattr(common, "load_generator", tried.append)
    done = call_main(COLOUR, *flags, "--colour", "in/large.png")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and not tried
    assert "large.png: too large" in done.stderr and "1.2 GB are free; make it smaller" in done.stderr
    assert not (tmp_path / "out").exists()
    done = call_main(COLOUR, "--run", run, "--whole")
    assert done.returncode == 2 and "--whole: goes with --colour only" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("filters", [2, 48])
def test_memory_of_whole_pictures(filters, untrained, tmp_path):
    """Broken if a whole picture takes more memory than it is said to, or a third of that."""
    run = untrained(f"memory{filters}", filters=filters)
    Image.effect_noise((3000, 2000), 80).convert("RGB").save(tmp_path / "photo.png")
    script = [HERE / COLOUR, "--run", run, "--whole", "--colour", tmp_path / "photo.png"]
    script += ["--out", tmp_path / "out"]
    # Started by a small process: what a large one starts would begin with its peak.
    start = "import os, sys; pid = os.posix_spawn(sys.executable, sys.argv[1:], os.environ); "
    start += "_, status, usage = os.wait4(pid, 0); print(status, usage.ru_maxrss)"
    command = [sys.executable, "-c", start, sys.executable, *map(str, script)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = 1e9 * float(done.stdout.split("s, ")[1].split(" GB")[0])
    status, peak = map(int, done.stdout.split()[-2:])
    assert status == 0 and said / 3 < 1024 * peak < said


def test_kept_pixels(call_main, tmp_path):
    """Broken if stage 7 throws away what training at a larger size would see.

    At 256 training takes 286 pixels, and at least twice as many are kept: of 3000x2400, a
    quarter. At 512 it takes 572, so half is kept: 1500x1200.
    """
    assert common.kept_size((3000, 2400)) == (750, 600)
    assert common.kept_size((3000, 2400), (512, 512)) == (1500, 1200)
    assert common.kept_size((3000, 1200), (256, 512)) == (1500, 600)
    assert common.kept_size((572 * 3, 572 * 3 - 1)) == (858, 857)
    (tmp_path / "one").mkdir()
    for name in "abc":
        Image.linear_gradient("L").resize((3000, 2400)).save(tmp_path / "one" / f"{name}.png")
    done = call_main(GET, "--edges", "one", "--size", "256x512", "--out", "edges")
    assert done.returncode == 0, done.stderr
    assert "--dataset edges --size 256x512" in done.stdout
    assert {Image.open(path).size for path in (tmp_path / "edges").rglob("*.png")} == {(1024, 256)}
    done = call_main(GET, "--pair", "one", "one", "--size", "512", "--out", "pairs")
    assert done.returncode == 0, done.stderr
    assert {Image.open(path).size for path in (tmp_path / "pairs").rglob("*.png")} == {(3000, 1200)}
    done = call_main(GET, "--download", "facades", "--size", "512", "--out", "new")
    assert done.returncode == 2 and "--size: not with --download" in done.stderr


def test_stage_3_at_another_size(call_main, few_pairs, tmp_path):
    """Broken if stage 3 does not measure and draw the pairs as stage 5 will take them."""
    done = call_main("03_pix2pix_data.py", "--dataset", few_pairs, "--size", "256x512")
    assert done.returncode == 0, done.stderr
    figure = Image.open(tmp_path / "runs" / "03_pix2pix_data" / "augmentation.png").size
    assert figure[0] > 3 * figure[1] / 2
