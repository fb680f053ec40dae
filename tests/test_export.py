"""Stage 8: the exported networks draw Keras' picture, and an export that fails leaves nothing."""

import importlib
import textwrap
from pathlib import Path

import common

import pytest
import tensorflow as tf

SCRIPT = "08_export.py"


class SmallUNet(common.UNet):
    """The U-Net with a thirty-second of its filters: quick to make and to export."""

    def __init__(self, filters=64, **kwargs):
        super().__init__(filters // 32, **kwargs)


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    """Has load_generator make small networks."""
    monkeypatch.setattr(common, "UNet", SmallUNet)


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory):
    common.keras.utils.set_random_seed(0)
    return make_run(tmp_path_factory.mktemp("trained") / "run", SmallUNet())


@pytest.fixture
def stage8():
    return importlib.import_module("08_export")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.filterwarnings("ignore:(?s).*tf.lite.Interpreter is deprecated")
def test_same_picture(call_main, stage8, run, tmp_path):
    """Broken if a format draws another picture than Keras, of conditions that the script did not try, or
    if the lines that the docstring gives for the exported files do not run them.
    """
    done = call_main(SCRIPT, "--run", run)
    assert done.returncode == 0, done.stderr
    out = Path("runs/08_export")  # where the docstring has them
    assert done.stdout.splitlines()[-2:] == [f"{out}/generator.tflite", f"{out}/saved_model"]
    assert names(tmp_path / "runs") == ["08_export"] and names(out) == ["generator.tflite", "saved_model"]
    generator, _ = common.load_generator(run)
    loaded = tf.saved_model.load(str(out / "saved_model"))
    lite = tf.lite.Interpreter(str(out / "generator.tflite"))
    runners = [loaded.signatures["serving_default"], lite.get_signature_runner("serving_default")]
    for seed in range(2):
        condition = tf.random.stateless_uniform((1, 256, 256, 3), (seed, 0), -1, 1)
        wanted = common.generate(generator, condition)
        for runner in runners:
            picture = runner(condition=condition)["picture"]
            assert float(tf.reduce_max(tf.abs(picture - wanted))) < stage8.TOLERANCE / 10
    lines = textwrap.dedent(stage8.__doc__[stage8.__doc__.index("    import tensorflow") :])
    scope = {}
    exec(lines, scope)
    assert len(lines.splitlines()) == 5 and len(scope["pictures"]) == 2
    wanted = common.generate(generator, tf.ones((1, 256, 256, 3)))
    for picture in scope["pictures"]:
        assert float(tf.reduce_max(tf.abs(picture - wanted))) < stage8.TOLERANCE / 10


def test_overwriting(call_main, run, tmp_path):
    """Broken if anything but an earlier export is overwritten, or that one unasked."""
    (tmp_path / "new" / "saved_model").mkdir(parents=True)
    (tmp_path / "new" / "generator.tflite").write_text("earlier")
    (tmp_path / "link").symlink_to("new")
    (tmp_path / "loop").symlink_to("loop")
    for out in ("new", "link", "loop"):
        done = call_main(SCRIPT, "--run", run, "--out", out)
        assert done.returncode == 2 and "is there already; give --force" in done.stderr
    assert (tmp_path / "new" / "generator.tflite").read_text() == "earlier"
    done = call_main(SCRIPT, "--run", run, "--out", "link", "--force")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "link").is_symlink() and (tmp_path / "new" / "generator.tflite").stat().st_size > 1e4
    (tmp_path / "new" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out in ("new", "file", "loop"):
        done = call_main(SCRIPT, "--run", run, "--out", out, "--force")
        assert done.returncode == 2 and f"{out}: holds other things" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "new" / "thesis.txt").exists()


@pytest.mark.slow
def test_failures(call_main, stage8, run, tmp_path, monkeypatch):
    """Broken if a failure is not told in one line, leaves something, or takes the earlier export."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "generator.tflite").write_text("earlier")

    def refused(*flags):
        done = call_main(SCRIPT, *flags, "--force")
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert names(tmp_path) == ["old"] and names(tmp_path / "old") == ["generator.tflite"]
        assert (tmp_path / "old" / "generator.tflite").read_text() == "earlier"
        return done.stderr

    assert "error: none: no trained run there" in refused("--run", "none", "--out", "old")
    with monkeypatch.context() as patch:
        patch.setattr(stage8, "TOLERANCE", -1.0)
        assert "draws another picture" in refused("--run", run, "--out", "old")

    def write_bytes(path, data):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert "the disk is full" in refused("--run", run, "--out", "old")
