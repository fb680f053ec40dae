"""Stage 8: the exported networks draw Keras' picture, and an export that fails leaves nothing."""

import importlib
import textwrap
from pathlib import Path

import common

import pytest
import tensorflow as tf
from test_pad import SmallUNet

SCRIPT = "08_export.py"
stage8 = importlib.import_module("08_export")


@pytest.fixture
def run(make_run, tmp_path, monkeypatch):
    monkeypatch.setattr(common, "UNet", SmallUNet)
    common.keras.utils.set_random_seed(0)
    return make_run(tmp_path / "run", SmallUNet())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.filterwarnings("ignore:(?s).*tf.lite.Interpreter is deprecated")
def test_same_picture(call_main, run):
    """Broken if a format draws another picture than Keras, of conditions that the script did not try,
    a batch's pictures change each other, or the docstring's lines do not run the files.
    """
    done = call_main(SCRIPT, "--run", run)
    assert done.returncode == 0, done.stderr
    out = Path("runs/08_export")  # where the docstring has them
    assert done.stdout.splitlines()[-2:] == [f"{out}/generator.tflite", f"{out}/saved_model"]
    assert names(out.parent) == ["08_export"] and names(out) == ["generator.tflite", "saved_model"]
    generator, _ = common.load_generator(run)
    scope = {}
    exec(textwrap.dedent(stage8.__doc__[stage8.__doc__.index("    import tensorflow") :]), scope)
    white = tf.ones((1, 256, 256, 3))
    for picture in scope["pictures"]:
        assert float(tf.reduce_max(tf.abs(picture - common.generate(generator, white)))) < 1e-3
    conditions = tf.random.stateless_uniform((3, 256, 256, 3), (0, 0), -1, 1)
    pictures = tf.concat([common.generate(generator, c[tf.newaxis]) for c in conditions], axis=0)
    batch = scope["saved_model"](condition=conditions)["picture"]
    single = scope["tflite"](condition=conditions[1:2])["picture"]
    assert float(tf.reduce_max(tf.abs(batch - pictures))) < 1e-3
    assert float(tf.reduce_max(tf.abs(single - pictures[1:2]))) < 1e-3
    size = (out / "generator.tflite").stat().st_size
    done = call_main(SCRIPT, "--run", run, "--precision", "int8", "--force")
    assert done.returncode == 0 and (out / "generator.tflite").stat().st_size < size / 2.5


def test_overwriting(call_main, run, tmp_path, monkeypatch):
    """Broken if anything but an earlier export is overwritten, or that one unasked."""
    written = []
    monkeypatch.setattr(stage8, "export", lambda *args: written.append(args[-1]))
    (tmp_path / "new" / "saved_model").mkdir(parents=True)
    (tmp_path / "new" / "generator.tflite").write_text("earlier")
    (tmp_path / "link").symlink_to("new")
    (tmp_path / "file").write_text("mine")
    for out in ("new", "link"):
        done = call_main(SCRIPT, "--run", run, "--out", out)
        assert done.returncode == 2 and "exists already; add --force" in done.stderr
    done = call_main(SCRIPT, "--run", run, "--out", "link", "--force")
    assert done.returncode == 0 and written == [tmp_path / "new"], done.stderr
    (tmp_path / "new" / "thesis.txt").write_text("mine")
    for out in ("new", "file"):
        done = call_main(SCRIPT, "--run", run, "--out", out, "--force")
        assert done.returncode == 2 and f"{out}: holds other things" in done.stderr
        assert len(done.stderr.splitlines()) == 1 and len(written) == 1


def test_failures(call_main, run, tmp_path, monkeypatch):
    """Broken if a failure is not told in one line, leaves something, or takes the earlier export."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "generator.tflite").write_text("earlier")

    def refused(run):
        done = call_main(SCRIPT, "--run", run, "--out", "old", "--force")
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert names(tmp_path) == ["old", "run"] and names(tmp_path / "old") == ["generator.tflite"]
        assert (tmp_path / "old" / "generator.tflite").read_text() == "earlier"
        return done.stderr

    assert "error: none: no trained run there" in refused("none")
    with monkeypatch.context() as patch:
        patch.setitem(stage8.ALLOWED, "float32", (-1.0, -1.0))
        assert "draws another picture" in refused(run)

    def write_bytes(path, data):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert "the disk is full" in refused(run)
