"""Stage 6: the pad by Matplotlib's own mouse events, and files coloured without it."""

import json
import shutil
from pathlib import Path

import common

import matplotlib
import pytest
import tensorflow as tf
from matplotlib.backend_bases import KeyEvent, MouseEvent
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

HERE = Path(__file__).parent.parent
SCRIPT = "06_sketch_pad.py"
PHONE = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # turned by 90 degrees


class SmallUNet(common.UNet):
    """The U-Net with a thirty-second of its filters: quick to make, to run and to export."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        for block in [*self.encoder, *self.decoder]:
            block.conv.filters //= 32


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory):
    common.keras.utils.set_random_seed(0)
    return make_run(tmp_path_factory.mktemp("trained") / "run", SmallUNet())


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    """Has load_generator make small networks."""
    monkeypatch.setattr(common, "UNet", SmallUNet)


@pytest.fixture
def pad(stage6, run, tmp_path):
    generator, flags = common.load_generator(run)
    figure = Figure(stage6.FIGURE, dpi=100)
    FigureCanvasAgg(figure)
    return stage6.SketchPad(figure, stage6.make_colour_function(generator), flags, tmp_path / "out")


def mouse(pad, kind, point, button=1, axes=None):
    """Sends the event of a backend when the mouse is at a point of the sheet, in its pixels."""
    x, y = (axes or pad.sketch.axes).transData.transform(point)
    options = {"buttons": [button] if button else []} if kind == "motion_notify" else {"button": button}
    MouseEvent(f"{kind}_event", pad.figure.canvas, x, y, **options)._process()


def stroke(pad, *points, button=1):
    mouse(pad, "button_press", points[0], button)
    for point in points[1:]:
        mouse(pad, "motion_notify", point, button)
    mouse(pad, "button_release", points[-1], button)


def press_key(pad, key):
    KeyEvent("key_press_event", pad.figure.canvas, key)._process()


def click(pad, number):
    """Clicks on a button, or with 4 into the text box."""
    axes = [*pad.buttons, pad.path][number].ax
    for kind in ("button_press", "button_release"):
        mouse(pad, kind, (0.5, 0.5), axes=axes)


def shown(image):
    """Returns what an axes shows, (256, 256, 3) in [0, 1]."""
    return tf.constant(image.get_array())


def read_condition(path):
    """Returns the left half of a pair, (256, 256, 3) in [-1, 1]."""
    stack = common.stack_pair(*common.decode_pair(path), "AtoB")
    return common.split_stack(common.resize(stack))[0]


def same(left, right):
    return float(tf.reduce_max(tf.abs(left - right))) < 1e-6


def test_strokes(pad):
    """Broken if a stroke is not where the mouse went, 7 pixels wide, or is not coloured when it ends."""
    before = shown(pad.picture)
    mouse(pad, "button_press", (50, 100))
    mouse(pad, "motion_notify", (200, 100))
    assert same(shown(pad.picture), before), "coloured while the pen is down"
    mouse(pad, "button_release", (200, 100))
    sheet = shown(pad.sketch)
    ink = [1 - float(value) for value in sheet[:, 120, 0]]
    assert sum(ink) == pytest.approx(7, abs=0.01)
    assert sum(y * share for y, share in enumerate(ink)) / 7 == pytest.approx(
        100, abs=0.4
    )  # a screen's pixel
    assert float(sheet[100, 48, 0]) == 0 and float(sheet[97, 47, 0]) > 0.5, "the end is not round"
    assert float(tf.reduce_mean(tf.abs(shown(pad.picture) - before))) > 0.01
    assert same(shown(pad.picture), (pad.colour(sheet[tf.newaxis] * 2 - 1)[0] + 1) / 2)


def test_odd_strokes(pad):
    """Broken if a dot, a stroke off the sheet, another button or a lost release goes wrong."""
    stroke(pad, (30, 30))
    ink = float(tf.reduce_sum(1 - shown(pad.sketch)[..., 0]))
    assert ink == pytest.approx(3.14 * 3.5**2, rel=0.03), "no dot"
    stroke(pad, (128, 128), (128, -60), (300, -60), (300, 128), (220, 128))  # out at the top, in at the right
    sheet = shown(pad.sketch)[..., 0]
    assert float(sheet[0, 128]) == 0 and float(sheet[128, 255]) == 0 and float(sheet[0, 200]) == 1
    for button in (2, 3):
        stroke(pad, (40, 200), (90, 200), button=button)
    stroke(pad, (0.5, 1.5), (100, 200), button=0)
    assert same(shown(pad.sketch)[..., 0], sheet) and len(pad.sheets) == 3
    mouse(pad, "button_press", (20, 220))
    mouse(pad, "motion_notify", (60, 220), button=0)  # let go outside of the window
    assert pad.stroke is None and len(pad.sheets) == 4
    mouse(pad, "motion_notify", (200, 220))
    assert float(shown(pad.sketch)[220, 60, 0]) == 1


def test_undo_clear_examples(pad, few_pairs):
    """Broken if a button or a key does not do what it says, or a key does so while one types."""
    states = [(shown(pad.sketch), shown(pad.picture))]
    for x in (50, 150):
        stroke(pad, (x, 50), (x, 200))
        states.append((shown(pad.sketch), shown(pad.picture)))
    click(pad, 1)
    assert same(shown(pad.sketch), tf.ones((256, 256, 3)))
    press_key(pad, "z")  # takes back the clearing
    for sketch, picture in (states[2], states[1], states[0], states[0]):
        assert same(shown(pad.sketch), sketch) and same(shown(pad.picture), picture)
        click(pad, 0)
    for name in [*common.find_pairs(few_pairs)["val"], common.find_pairs(few_pairs)["val"][0]]:
        press_key(pad, "n")
        condition = read_condition(name)
        assert same(shown(pad.sketch), condition / 2 + 0.5) and name in pad.message.get_text()
    click(pad, 4)
    for key in "zc":
        press_key(pad, key)
    assert same(shown(pad.sketch), condition / 2 + 0.5) and pad.path.text == "zc"
    pad.flags["--dataset"] = "gone"
    click(pad, 2)
    assert "No example: --dataset gone" in pad.message.get_text()


def test_other_sizes(pad, tmp_path):
    """Broken if a pair of another size than 512x256 is not shown, loaded or as an example."""
    pair = Image.new("RGB", (200, 100), "red")
    pair.paste("blue", (0, 0, 100, 100))
    for split, size in (("train", (200, 100)), ("val", (90, 70))):
        (tmp_path / "data" / split).mkdir(parents=True)
        pair.resize(size, Image.Resampling.NEAREST).save(tmp_path / "data" / split / "pair.png")
    pad.flags["--dataset"] = str(tmp_path / "data")
    blue = tf.broadcast_to([0.0, 0.0, 1.0], (256, 256, 3))
    pad.load(str(tmp_path / "data" / "train" / "pair.png"))
    assert same(shown(pad.sketch), blue)
    pad.flags["--direction"] = "BtoA"
    pad.next_example()
    assert same(shown(pad.sketch), blue[..., ::-1])


def test_odd_paths(pad):
    """Broken if a path in the box that cannot be one ends in a traceback, or is not told."""
    paths = {
        "~nosuchuser/x.png": "~nosuchuser/x.png: No such file",
        "x\0y.png": r"'x\x00y.png' holds characters",
        "n" * 300: "nnn: File name too long",
        "/": "/: not a file",
    }
    for path, message in paths.items():
        pad.load(path)
        assert message in pad.message.get_text() and len(pad.sheets) == 1
        pad.figure.canvas.draw()


def test_load_and_save(pad, few_pairs, tmp_path, capsys, monkeypatch):
    """Broken if a file typed into the box is not shown, or saving loses or overwrites a picture."""
    monkeypatch.chdir(few_pairs / "val")
    name = Path(common.find_pairs(few_pairs)["val"][0]).name
    click(pad, 4)
    for key in ["n", "enter", "backspace", *name, "enter"]:
        press_key(pad, key)
        if key == "backspace":
            assert "n: No such file" in pad.message.get_text()
    left, right = (tf.cast(half, tf.float32) / 255 for half in common.decode_pair(name))
    assert same(shown(pad.sketch), left) and not pad.path.capturekeystrokes
    pad.flags["--direction"] = "BtoA"
    pad.load(name)
    assert same(shown(pad.sketch), right)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result_001.png").write_text("mine")
    click(pad, 3)
    press_key(pad, "s")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("result_001.png", "result_002.png", "result_003.png"),
        *("sketch_002.png", "sketch_003.png"),
    ]
    assert (tmp_path / "out" / "result_001.png").read_text() == "mine"
    printed = capsys.readouterr().out
    for kind, image in (("sketch", pad.sketch), ("result", pad.picture)):
        saved = common.decode_picture(str(tmp_path / "out" / f"{kind}_003.png"))
        assert float(tf.reduce_max(tf.abs(tf.cast(saved, tf.float32) / 255 - shown(image)))) < 0.51 / 255
        assert f"{kind}_003.png" in pad.message.get_text() and f"{kind}_003.png" in printed


def photograph(sketch, thinner=0, noise=0.02):
    """Returns a photograph of a sketch (256, 256, 3) in [0, 1]: uneven light, yellow paper, thin lines."""
    ink = tf.image.resize(1 - sketch[tf.newaxis, ..., :1], (600, 800), method="bicubic")
    ink = -tf.nn.max_pool2d(-tf.clip_by_value(ink, 0, 1), 1 + 2 * thinner, 1, "SAME")[0]
    light = 0.45 + 0.4 * tf.linspace(0.0, 1.0, 800)[tf.newaxis, :, tf.newaxis]
    picture = light * (1 - 0.8 * ink) + noise * tf.random.stateless_normal((600, 800, 1), (0, 0))
    return tf.clip_by_value(picture * tf.constant([1, 0.97, 0.88]), 0, 1)


def test_cleaning(stage6, few_pairs):
    """Broken if paper does not come out white and ink black, lines too thin, or a clean sketch changed."""
    left, _ = common.decode_pair(common.find_pairs(few_pairs)["val"][0])
    sketch = tf.cast(left, tf.float32) / 255
    assert float(tf.reduce_mean(tf.abs(stage6.clean_photograph(sketch, 7.0) - sketch))) < 0.01
    wanted = tf.image.resize(
        stage6.pad_to_square(tf.image.resize(sketch, (600, 800))), (256, 256), antialias=True
    )
    for thinner in (0, 4):  # of lines that are about 16 wide
        cleaned = stage6.pad_to_square(
            stage6.clean_photograph(stage6.limit_size(photograph(sketch, thinner)), 7.0)
        )
        assert cleaned.shape == (512, 512, 3)
        cleaned = tf.image.resize(cleaned, (256, 256), antialias=True)
        assert float(tf.reduce_mean(tf.abs(cleaned - wanted))) < 0.02
        assert float(tf.reduce_mean(cleaned[wanted > 0.99])) > 0.99
    blank = stage6.clean_photograph(stage6.limit_size(photograph(tf.ones((256, 256, 3)), noise=0.03)), 7.0)
    assert float(tf.reduce_min(blank)) == 1, "grain was taken for ink"


def test_files(stage6, call_main, run, tmp_path, few_pairs):
    """Broken if files are not coloured under their names, or anything is overwritten unasked."""
    photo = Image.new("RGB", (60, 40), (120, 120, 100))
    photo.paste(0, (0, 0, 60, 8))  # at the top; at the right for who heeds EXIF
    (tmp_path / "in").mkdir()
    photo.save(tmp_path / "in" / "phone.jpg", exif=PHONE, quality=95)
    photo.convert("L").save(tmp_path / "in" / "gray.png")
    sheet = stage6.read_sketch(str(tmp_path / "in" / "phone.jpg"), "AtoB", as_is=False)[0, ..., 0]
    assert float(sheet[128, 206]) < -0.9 and float(sheet[128, 60]) > 0.9 and float(sheet[128, 10]) == 1
    sheet = stage6.read_sketch(str(tmp_path / "in" / "gray.png"), "AtoB", as_is=True)[0, ..., 0]
    assert float(sheet[128, 60]) == pytest.approx(117 / 127.5 - 1, abs=0.02)

    pair = common.find_pairs(few_pairs)["val"][0]
    flags = ["--run", run, "--out", "out", "--sketch", "in"]
    done = call_main(SCRIPT, "--run", run, "--out", "out", "--colour", pair, "--pairs")
    assert done.returncode == 0, done.stderr
    done = call_main(SCRIPT, *flags)
    assert done.returncode == 0, done.stderr
    names = ["gray.png", "phone.png", Path(pair).name]
    assert done.stdout.splitlines()[:2] == [f"out/{name}" for name in names[:2]]
    assert done.stdout.splitlines()[2] == "2 pictures coloured, 0 files left out."
    generator, _ = common.load_generator(run)
    condition = read_condition(pair)[tf.newaxis]
    result = tf.cast(common.decode_picture(str(tmp_path / "out" / names[-1])), tf.float32) / 127.5 - 1
    assert float(tf.reduce_max(tf.abs(result - common.generate(generator, condition)[0]))) < 0.01

    (tmp_path / "out" / "gray.png").unlink()
    (tmp_path / "out" / "phone.png").write_text("mine")
    done = call_main(SCRIPT, *flags)
    assert done.returncode == 2 and "out/phone.png: is there already" in done.stderr
    assert not (tmp_path / "out" / "gray.png").exists(), "coloured some before it refused"
    assert call_main(SCRIPT, *flags, "--force").returncode == 0
    assert common.decode_picture(str(tmp_path / "out" / "phone.png")).shape == (384, 256, 3)
    shutil.copy(tmp_path / "in" / "gray.png", tmp_path / "gray.jpg")
    (tmp_path / "bad.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    mistakes = {
        "would have the same result": ["--sketch", "in", "gray.jpg"],
        "in/gray.png: is there already": ["--sketch", "in", "--out", "in", "--force"],
        "--colour bad.png: not a picture": ["--sketch", "in", "bad.png"],
        "--colour none.png: no such file": ["--sketch", "none.png"],
        "--colour empty: no picture in it": ["--sketch", "empty"],
        "--load and --web belong to the pad": ["--sketch", "in", "--web"],
    }
    for message, wrong in mistakes.items():
        done = call_main(SCRIPT, "--run", run, "--out", "new", *wrong)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, message
    assert not (tmp_path / "new").exists()


def test_runs(call_main, run, tmp_path, few_pairs):
    """Broken if a run that is missing, another stage's, unended or damaged is not told in one line."""

    def edit(**changes):
        file = tmp_path / "run" / "options.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    mistakes = {
        "no trained run there; this makes one: python 05": lambda: shutil.rmtree(tmp_path / "run"),
        "a run of 01_gan_mnist.py": lambda: edit(data={"script": "01_gan_mnist.py"}),
        "its first epoch has not ended": (tmp_path / "run" / "generator.weights.h5").unlink,
        "generator.weights.h5: damaged": lambda: (tmp_path / "run" / "generator.weights.h5").write_text("x"),
        "options.json or metrics.csv is damaged": lambda: (tmp_path / "run" / "options.json").write_text("{"),
        "metrics.csv is damaged; the run's command": lambda: edit(flags={}),
    }
    for message, damage in mistakes.items():
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(run, tmp_path / "run")
        damage()
        done = call_main(SCRIPT, "--run", "run", "--sketch", few_pairs / "val")
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert message in done.stderr


def test_web_refused(call_main, run, monkeypatch):
    """Broken if a missing tornado is not told with its cure."""
    monkeypatch.setitem(matplotlib.sys.modules, "tornado", None)
    monkeypatch.delitem(matplotlib.sys.modules, "matplotlib.backends.backend_webagg", raising=False)
    monkeypatch.delitem(matplotlib.sys.modules, "matplotlib.backends.backend_webagg_core", raising=False)
    done = call_main(SCRIPT, "--run", run, "--web")
    assert done.returncode == 2 and "pip install -r requirements-web.txt" in done.stderr


def test_export_moved(call_main, run):
    """Broken if the flag of earlier versions is not answered with the command that took its place."""
    done = call_main(SCRIPT, "--run", run, "--export", "new")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert f"python 08_export.py --run {run} --out new" in done.stderr
