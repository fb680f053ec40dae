"""Other sizes and widths than the paper's, from the flags to the page, and whole pictures."""

import argparse
import json
import math
import os
import shutil
import signal
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


def test_sizes():
    """Broken if --size is not height x width, or one is taken that the networks cannot have."""
    sizes = {"512x256": HIGH, "512": (512, 512), "256x4096": (256, 4096)}
    assert {text: common.image_size(text) for text in sizes} == sizes
    assert common.size_text(HIGH) == "512x256"
    for wrong in ("255", "0", "0x256", "256x", "x256", "-256", "256x384", "4352", "100000x100000", "1e3"):
        with pytest.raises(argparse.ArgumentTypeError, match="multiple of 256 from 256 to 4096"):
            common.image_size(wrong)


@pytest.mark.parametrize("filters", [1, 32, 96])
def test_widths_are_in_proportion(stage4, filters):
    """Broken if a layer of a wider or narrower network keeps the number of channels it has at 64."""

    def widths(networks):
        return [block.conv.filters / share for blocks, share in networks for block in blocks]

    def networks(filters):
        unet, patchgan = common.UNet(filters), common.PatchGAN(filters)
        blocks = [unet.encoder, unet.decoder, patchgan.blocks, [patchgan.last_block]]
        return [*blocks, stage4.EncoderDecoder(filters).blocks]

    wanted = widths([(blocks, 64) for blocks in networks(64)])
    assert widths([(blocks, filters) for blocks in networks(filters)]) == wanted


def test_networks_of_another_size():
    """Broken if the networks cannot take 512x256: bottleneck 2x1, one logit for each patch.

    512 goes 256, 128, 64, then (without padding to the same size) 64 + 2 - 3 = 63, 62.
    """
    x = picture = tf.zeros((1, *HIGH, 3))
    unet = common.UNet(2)
    for block in unet.encoder:
        x = block(x, training=True)
    assert x.shape == (1, 2, 1, 16)
    assert unet(picture, training=True).shape == (1, *HIGH, 3)
    assert common.PatchGAN(2)(picture, picture, training=True).shape == (1, 62, 30, 1)


@pytest.mark.parametrize("name", list(common.AUGMENTATIONS))
def test_augmentations_of_another_size(name):
    """Broken if pairs of --size 512x256 are not 572x286 before the crop, or not shifted by up to 60x30.

    Of a picture whose lower right quarter is bright, both edges stay within half of the border's
    width of the middle: 286 - 60 to 286 from the top, 143 - 30 to 143 from the left.
    """
    quarter = tf.tile(tf.pad(tf.ones((100, 150, 1)), [[100, 0], [150, 0], [0, 0]]), (1, 1, 6))
    heights = []
    for draw in range(20):
        result = common.AUGMENTATIONS[name](quarter, tf.constant([0, draw], tf.int64), HIGH)
        assert result.shape == (*HIGH, 6)
        inner = result[60:-60, 30:-30, 0]  # without the border of the course's recipe
        row, column = tf.reduce_max(inner, axis=1), tf.reduce_max(inner, axis=0)
        height, width = (int(tf.reduce_sum(tf.cast(line > 0.5, tf.int32))) for line in (row, column))
        assert 196 - 61 <= height <= 196 + 61 and 98 - 31 <= width <= 98 + 31
        heights.append(height)
    # The most that the height could vary by if it were shifted as the width is.
    least = {"none": -1, "jitter": 30, "course": 60}[name]
    assert max(heights) - min(heights) > least
    assert name != "none" or len(set(heights)) == 1


@pytest.mark.slow
def test_all_stages_at_another_size(call_main, stage5, few_pairs, tmp_path, monkeypatch):
    """Broken if a run of --size 512x256 loses steps, or is used at another size by a later stage."""
    flags = ["--dataset", few_pairs, "--steps-per-epoch", 2, "--size", "512x256", "--filters", 32]
    step = stage5.Pix2Pix.train_step

    def stop(model, pair):
        signal.raise_signal(signal.SIGINT)
        assert pair[0].shape == (1, *HIGH, 3)
        return step(model, pair)

    with monkeypatch.context() as patch:
        patch.setattr(stage5.Pix2Pix, "train_step", stop)  # it sends while it is being traced
        assert call_main(TRAIN, *flags, "--epochs", 2, "--out", "parts").returncode == 130
    for out in ("parts", "whole"):
        done = call_main(TRAIN, *flags, "--epochs", 2, "--out", out)
        assert done.returncode == 0, done.stderr
    for name in ("losses.csv", "metrics.csv", "generator.weights.h5", "result.png"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    run = tmp_path / "whole"
    recorded = json.loads((run / "options.json").read_text())
    assert (recorded["flags"]["--size"], recorded["flags"]["--filters"]) == ("512x256", 32)
    conditions = sorted((run / "validation" / "condition").iterdir())
    assert len(conditions) == 2 and Image.open(conditions[0]).size == (256, 512)
    assert 'height="512" width="256"' in (run / "index.html").read_text()

    done = call_main(COLOUR, "--run", "whole", "--as-is", "--colour", *conditions, "--out", "coloured")
    assert done.returncode == 0, done.stderr
    for path in conditions:
        ours, theirs = tmp_path / "coloured" / path.name, run / "validation" / "generated" / path.name
        assert as_floats(ours).shape == (1, *HIGH, 3)
        assert largest_difference(as_floats(ours), as_floats(theirs)) < 0.05  # conditions were rounded

    done = call_main(EXPORT, "--run", "whole", "--out", "exported")
    assert done.returncode == 0 and done.stdout.count("differs from Keras by") == 2, done.stderr
    condition = tf.random.stateless_uniform((1, *HIGH, 3), (0, 0), -1, 1)
    wanted = common.generate(common.load_generator(run)[0], condition)
    loaded = tf.saved_model.load(str(tmp_path / "exported" / "saved_model"))
    with pytest.warns(UserWarning, match="deprecated"):
        lite = tf.lite.Interpreter(str(tmp_path / "exported" / "generator.tflite"))
    for runner in (loaded.signatures["serving_default"], lite.get_signature_runner("serving_default")):
        assert largest_difference(runner(condition=condition)["picture"], wanted) < 1e-3

    done = call_main(TRAIN, *flags, "--size", "256", "--epochs", 3, "--out", "whole")
    assert done.returncode == 2 and "--size 512x256 -> 256x256" in done.stderr
    done = call_main(TRAIN, *flags, "--filters", "3", "--epochs", 3, "--out", "whole")
    assert done.returncode == 2 and "--filters 32 -> 3" in done.stderr
    done = call_main(TRAIN, *flags, "--filters", "3", "--start-from", "whole", "--out", "new")
    assert done.returncode == 2 and "has other networks; give --filters 32" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "new").exists()
    shutil.copytree(run, tmp_path / "square")
    recorded["flags"]["--size"] = "256x256"
    (tmp_path / "square" / "options.json").write_text(json.dumps(recorded))
    done = call_main(TRAIN, "--compare", "whole", "square")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "square: was trained at --size 256x256, and whole at 512x256" in done.stderr


@pytest.mark.slow
def test_start_from_another_size(call_main, few_pairs, tmp_path):
    """Broken if a run cannot begin with the weights of one of another size."""
    flags = ["--dataset", few_pairs, "--steps-per-epoch", 1, "--epochs", 1, "--filters", 2]
    assert call_main(TRAIN, *flags, "--out", "square").returncode == 0
    done = call_main(TRAIN, *flags, "--size", "512x256", "--start-from", "square", "--out", "high")
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "high" / "options.json").read_text())["data"]
    assert data["started from"]["networks"] == ["generator", "discriminator"]


def test_older_runs(tmp_path, untrained):
    """Broken if a run from before --size and --filters cannot go on, or goes on at another size."""
    run = untrained("older", filters=64)
    options = json.loads((run / "options.json").read_text())
    options |= {"format": common.FORMAT, "flags": {"--dataset": "d", "--direction": "AtoB", "--epochs": 1}}
    options["data"]["contents of the data"] = "x"
    (run / "options.json").write_text(json.dumps(options))
    assert common.read_run(run)[0]["flags"]["--size"] == "256x256"
    generator, flags = common.load_generator(run)
    assert generator.encoder[0].conv.filters == flags["--filters"] == 64
    now = options["flags"] | options["data"]
    for flags in ({}, {"--size": "256x256", "--filters": 64}):  # as stage 1, which has none, and as stage 5
        common.refuse_changes(run / "options.json", now | flags)
    for flags in ({"--size": "512x256", "--filters": 64}, {"--size": "256x256", "--filters": 32}):
        with pytest.raises(common.UserError, match="256x256 -> 512x256|64 -> 32"):
            common.refuse_changes(run / "options.json", now | flags)
    for wrong in ({"--size": "255"}, {"--size": 512}, {"--filters": 10**9}, {"--filters": "many"}):
        (run / "options.json").write_text(json.dumps(options | {"flags": options["flags"] | wrong}))
        with pytest.raises(common.UserError, match="damaged"):
            common.read_run(run)


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


def test_training_too_large(call_main, tmp_path, monkeypatch):
    """Broken if a training that cannot fit into memory is begun, or one that fits is refused."""
    monkeypatch.setattr(common, "free_memory", lambda: 8e9)
    for flags in (["--size", "4096"], ["--filters", "256"], ["--batch-size", "100", "--size", "512"]):
        done = call_main(TRAIN, *flags, "--dataset", "none")
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert "and 8.0 GB are free; give smaller ones" in done.stderr and flags[0] in done.stderr
    for flags in (["--size", "512x512"], ["--filters", "96"], ["--batch-size", "4"]):
        assert "no such folder" in call_main(TRAIN, *flags, "--dataset", "none").stderr
    assert not list(tmp_path.iterdir())


def test_free_memory(monkeypatch):
    """Broken if memory is not looked up where it can be, or a system without these files is refused all."""
    assert 1e8 < common.free_memory() < 1e14

    def no_file(path, **options):
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", no_file)
    assert 1e8 < common.free_memory() < 1e14  # macOS: all there is
    monkeypatch.delattr(os, "sysconf")
    assert common.free_memory() == math.inf  # Windows


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
