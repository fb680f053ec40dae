"""Stage 8: exported networks draw Keras' picture, and a failed export leaves nothing behind."""

import importlib
import textwrap
from pathlib import Path

import common

import pytest
import tensorflow as tf
from conftest import difference

SCRIPT = "08_export.py"
stage8 = importlib.import_module("08_export")


@pytest.fixture
def run(make_run, tmp_path):
    common.keras.utils.set_random_seed(0)
    return make_run(tmp_path / "run", common.UNet(4))


@pytest.mark.filterwarnings("ignore:(?s).*tf.lite.Interpreter is deprecated")
def test_same_picture(call_main, run):
    """Broken if an export draws another picture or mixes a batch, or the docstring does not run."""
    done = call_main(SCRIPT, "--run", run)
    assert done.returncode == 0, done.stderr
    out = Path("runs/08_export")  # where the docstring has them
    assert done.stdout.endswith(f"{out}/generator.tflite\n{out}/saved_model\n")
    generator, _ = common.load_generator(run)
    scope = {}
    exec(textwrap.dedent(stage8.__doc__[stage8.__doc__.index("    import tensorflow") :]), scope)
    conditions = tf.random.stateless_uniform((3, 256, 256, 3), (0, 0), -1, 1)
    pictures = tf.concat([common.generate(generator, c[tf.newaxis]) for c in conditions], axis=0)
    batch = scope["saved_model"](condition=conditions)["picture"]
    single = scope["tflite"](condition=conditions[1:2])["picture"]
    assert difference(batch, pictures) < 1e-3 and difference(single, pictures[1:2]) < 1e-3
    network = tf.lite.Interpreter(str(out / "generator.tflite"))
    kinds = [operation["op_name"] for operation in network._get_ops_details()]
    assert (kinds.count("CONV_2D"), kinds.count("TRANSPOSE_CONV")) == (8 + 4 * 7, 1), kinds
    size = (out / "generator.tflite").stat().st_size
    done = call_main(SCRIPT, "--run", run, "--precision", "int8", "--force")
    assert done.returncode == 0 and (out / "generator.tflite").stat().st_size < size / 2.5


def test_overwriting(call_main, refused, run, tmp_path, monkeypatch):
    """Broken if other files are overwritten, or an earlier export without --force or on failure."""
    for folder in ("old", "mine"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "generator.tflite").write_text("earlier")
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    command = [SCRIPT, "--run", run, "--out"]
    refused(*command, "old", words="old: exists already; add --force")
    refused(*command, "mine", "--force", words="mine: holds other things")
    with monkeypatch.context() as patch:
        patch.setitem(stage8.ALLOWED, "float32", (-1.0, -1.0))
        refused(*command, "old", "--force", words="differs from Keras' picture")
    (tmp_path / "link").symlink_to("old")
    done = call_main(*command, "link", "--force")
    assert done.returncode == 0 and (tmp_path / "old" / "generator.tflite").stat().st_size > 1e4
