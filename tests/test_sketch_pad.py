"""Stage 6: the pad by Matplotlib's own mouse events, files coloured without it, the export."""

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


@pytest.fixture
def small(stage6, monkeypatch):
    """Has stage 6 load small networks; returns it."""
    monkeypatch.setattr(stage6, "UNet", SmallUNet)
    return stage6


@pytest.fixture
def pad(small, run, tmp_path):
    generator, flags = small.load_generator(run)
    figure = Figure(small.FIGURE, dpi=100)
    FigureCanvasAgg(figure)
    return small.SketchPad(figure, small.colourer(generator), flags, tmp_path / "out")


def mouse(pad, kind, place, button=1, axes=None):
    """The event that a backend sends when the mouse is at a place on the sheet, in its pixels."""
    x, y = (axes or pad.sketch.axes).transData.transform(place)
    options = {"buttons": [button] if button else []} if kind == "motion_notify" else {"button": button}
    MouseEvent(f"{kind}_event", pad.figure.canvas, x, y, **options)._process()


def stroke(pad, *places, button=1):
    mouse(pad, "button_press", places[0], button)
    for place in places[1:]:
        mouse(pad, "motion_notify", place, button)
    mouse(pad, "button_release", places[-1], button)


def press_key(pad, key):
    KeyEvent("key_press_event", pad.figure.canvas, key)._process()


def click(pad, number):
    """Clicks on a button, or with 4 into the text box."""
    axes = [*pad.buttons, pad.path][number].ax
    for kind in ("button_press", "button_release"):
        mouse(pad, kind, (0.5, 0.5), axes=axes)


def shown(image):
    """What an axes shows, (256, 256, 3) in [0, 1]."""
    return tf.constant(image.get_array())


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
    """Broken if a button or a key does not do what it says, or a key does while one types."""
    states = [(shown(pad.sketch), shown(pad.picture))]
    for place in (50, 150):
        stroke(pad, (place, 50), (place, 200))
        states.append((shown(pad.sketch), shown(pad.picture)))
    click(pad, 1)
    assert same(shown(pad.sketch), tf.ones((256, 256, 3)))
    press_key(pad, "z")  # takes back the clearing
    for sketch, picture in (states[2], states[1], states[0], states[0]):
        assert same(shown(pad.sketch), sketch) and same(shown(pad.picture), picture)
        click(pad, 0)
    for name in [*common.find_pairs(few_pairs)["val"], common.find_pairs(few_pairs)["val"][0]]:
        press_key(pad, "n")
        condition = common.split_stack(common.stack_pair(*common.decode_pair(name), "AtoB"))[0]
        assert same(shown(pad.sketch), condition / 2 + 0.5) and name in pad.message.get_text()
    click(pad, 4)
    for key in "zc":
        press_key(pad, key)
    assert same(shown(pad.sketch), condition / 2 + 0.5) and pad.path.text == "zc"
    pad.flags["--dataset"] = "gone"
    click(pad, 2)
    assert "No example: --dataset gone" in pad.message.get_text()


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
    """A photograph of a sketch (256, 256, 3) in [0, 1]: uneven light, yellow paper, a thin pen, noise."""
    ink = tf.image.resize(1 - sketch[tf.newaxis, ..., :1], (600, 800), method="bicubic")
    ink = -tf.nn.max_pool2d(-tf.clip_by_value(ink, 0, 1), 1 + 2 * thinner, 1, "SAME")[0]
    light = 0.45 + 0.4 * tf.linspace(0.0, 1.0, 800)[tf.newaxis, :, tf.newaxis]
    picture = light * (1 - 0.8 * ink) + noise * tf.random.stateless_normal((600, 800, 1), (0, 0))
    return tf.clip_by_value(picture * tf.constant([1, 0.97, 0.88]), 0, 1)


def test_cleaning(stage6, few_pairs):
    """Broken if paper does not come out white and ink black, lines too thin, or a clean sketch changed."""
    left, _ = common.decode_pair(common.find_pairs(few_pairs)["val"][0])
    sketch = tf.cast(left, tf.float32) / 255
    assert float(tf.reduce_mean(tf.abs(stage6.clean_photograph(sketch) - sketch))) < 0.01
    wanted = tf.image.resize(
        stage6.on_square(tf.image.resize(sketch, (600, 800))), (256, 256), antialias=True
    )
    for thinner in (0, 4):  # of lines that are about 16 wide
        cleaned = stage6.clean_photograph(stage6.reduced(photograph(sketch, thinner)))
        assert cleaned.shape == (512, 512, 3)
        cleaned = tf.image.resize(cleaned, (256, 256), antialias=True)
        assert float(tf.reduce_mean(tf.abs(cleaned - wanted))) < 0.02
        assert float(tf.reduce_mean(cleaned[wanted > 0.99])) > 0.99
    blank = stage6.clean_photograph(stage6.reduced(photograph(tf.ones((256, 256, 3)), noise=0.03)))
    assert float(tf.reduce_min(blank)) == 1, "grain was taken for ink"


def test_files(small, call_main, run, tmp_path, few_pairs):
    """Broken if files are not coloured under their names, or anything is overwritten unasked."""
    photo = Image.new("RGB", (60, 40), (120, 120, 100))
    photo.paste(0, (0, 0, 60, 8))  # at the top; at the right for who heeds EXIF
    (tmp_path / "in").mkdir()
    photo.save(tmp_path / "in" / "phone.jpg", exif=PHONE, quality=95)
    photo.convert("L").save(tmp_path / "in" / "gray.png")
    sheet = small.read_sketch(str(tmp_path / "in" / "phone.jpg"), "AtoB", as_is=False)[0, ..., 0]
    assert float(sheet[128, 206]) < -0.9 and float(sheet[128, 60]) > 0.9 and float(sheet[128, 10]) == 1
    sheet = small.read_sketch(str(tmp_path / "in" / "gray.png"), "AtoB", as_is=True)[0, ..., 0]
    assert float(sheet[128, 60]) == pytest.approx(117 / 127.5 - 1, abs=0.02)

    pair = common.find_pairs(few_pairs)["val"][0]
    flags = ["--run", run, "--out", "out", "--sketch", "in", pair]
    done = call_main(SCRIPT, *flags)
    assert done.returncode == 0, done.stderr
    names = ["gray.png", "phone.png", Path(pair).name]
    assert done.stdout.split() == [f"out/{name}" for name in names]
    generator, _ = small.load_generator(run)
    condition = common.split_stack(common.stack_pair(*common.decode_pair(pair), "AtoB"))[0][tf.newaxis]
    result = tf.cast(common.decode_picture(str(tmp_path / "out" / names[-1])), tf.float32) / 127.5 - 1
    assert float(tf.reduce_max(tf.abs(result - common.generate(generator, condition)[0]))) < 0.01

    (tmp_path / "out" / "gray.png").unlink()
    (tmp_path / "out" / "phone.png").write_text("mine")
    done = call_main(SCRIPT, *flags)
    assert done.returncode == 2 and "out/phone.png: is there already" in done.stderr
    assert not (tmp_path / "out" / "gray.png").exists(), "coloured some before it refused"
    assert call_main(SCRIPT, *flags, "--force").returncode == 0
    assert common.decode_picture(str(tmp_path / "out" / "phone.png")).shape == (256, 256, 3)
    shutil.copy(tmp_path / "in" / "gray.png", tmp_path / "gray.jpg")
    (tmp_path / "bad.png").write_text("no picture")
    mistakes = {
        "would have the same result": ["--sketch", "in", "gray.jpg"],
        "in/gray.png: is there already": ["--sketch", "in", "--out", "in", "--force"],
        "bad.png (not PNG or JPEG)": ["--sketch", "in", "bad.png"],
        "--sketch none.png: no such file": ["--sketch", "none.png"],
        f"--sketch {run}: no .jpg": ["--sketch", run],
        "--web are of the pad": ["--sketch", "in", "--web"],
    }
    for words, wrong in mistakes.items():
        done = call_main(SCRIPT, "--run", run, "--out", "new", *wrong)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, words
    assert not (tmp_path / "new").exists()


def test_runs(small, call_main, run, tmp_path, few_pairs):
    """Broken if a run that is missing, another stage's, unended or damaged is not told in one line."""

    def edit(**changes):
        file = tmp_path / "run" / "options.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    mistakes = {
        "no trained run there; this makes one: python 05": lambda: shutil.rmtree(tmp_path / "run"),
        "a run of 01_gan_mnist.py": lambda: edit(data={"script": "01_gan_mnist.py"}),
        "its training has not ended": (tmp_path / "run" / "generator.weights.h5").unlink,
        "generator.weights.h5: damaged": lambda: (tmp_path / "run" / "generator.weights.h5").write_text("x"),
        "options.json: damaged": lambda: (tmp_path / "run" / "options.json").write_text("{"),
        "options.json: damaged; give": lambda: edit(flags=[]),
    }
    for words, damage in mistakes.items():
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(run, tmp_path / "run")
        damage()
        done = call_main(SCRIPT, "--run", "run", "--sketch", few_pairs / "val")
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert words in done.stderr


def test_web_refused(small, call_main, run, monkeypatch):
    """Broken if a missing tornado is not told with its cure."""
    monkeypatch.setitem(matplotlib.sys.modules, "tornado", None)
    monkeypatch.delitem(matplotlib.sys.modules, "matplotlib.backends.backend_webagg", raising=False)
    monkeypatch.delitem(matplotlib.sys.modules, "matplotlib.backends.backend_webagg_core", raising=False)
    done = call_main(SCRIPT, "--run", run, "--web")
    assert done.returncode == 2 and "pip install -r requirements-web.txt" in done.stderr


def test_export(small, call_main, run, tmp_path, monkeypatch):
    """Broken if SavedModel or TFLite draws another picture, or a failed export leaves something."""
    done = call_main(SCRIPT, "--run", run, "--export", "new")
    assert done.returncode == 0, done.stderr
    sketch = tf.random.stateless_uniform((1, 256, 256, 3), (0, 0), -1, 1)
    wanted = common.generate(small.load_generator(run)[0], sketch)
    loaded = tf.saved_model.load(str(tmp_path / "new" / "saved_model"))
    with pytest.warns(UserWarning, match="deprecated"):
        lite = tf.lite.Interpreter(str(tmp_path / "new" / "generator.tflite"))
    for runner in (loaded.signatures["serving_default"], lite.get_signature_runner("serving_default")):
        picture = runner(sketch=sketch)["picture"]
        assert float(tf.reduce_max(tf.abs(picture - wanted))) < small.TOLERANCE / 10
    done = call_main(SCRIPT, "--run", run, "--export", "new")
    assert done.returncode == 2 and "new: is there already" in done.stderr
    (tmp_path / "new" / "thesis.txt").write_text("mine")
    done = call_main(SCRIPT, "--run", run, "--export", "new", "--force")
    assert done.returncode == 2 and "new: holds other things" in done.stderr
    monkeypatch.setattr(small, "TOLERANCE", -1.0)
    done = call_main(SCRIPT, "--run", run, "--export", "other")
    assert done.returncode == 2 and "draws another picture" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
