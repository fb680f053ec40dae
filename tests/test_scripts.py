"""The scripts, run as a user runs them: what they print and write."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import common

import pytest
import tensorflow as tf
from conftest import HERE, same


def assert_drawn(*paths):
    """Asserts that figures are there and not blank."""
    for path in paths:
        pixels = tf.io.decode_png(tf.io.read_file(str(path)), channels=3)
        assert float(tf.math.reduce_std(tf.cast(pixels, tf.float32))) > 20, f"{path} is blank"


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.slow
def test_models(run_script, tmp_path):
    """Broken if stage 4 fails, or its tables, measurements or figures are wrong."""
    done = run_script("04_pix2pix_models.py", "--steps", 1, "--filters", 8)
    assert done.returncode == 0 and not done.stderr, done.stderr
    facts = ["(34 - 1) * 2 + 4 = 70", "70x70 pixels", "through 64 numbers"]
    facts += ["(None, 1, 1, 64)", "(None, 30, 30, 1)"]
    assert [fact for fact in facts if fact not in done.stdout] == []
    # The uncoloured sketches' L1, worked out from the six files by Pillow, another JPEG decoder.
    found = [float(word) for word in done.stdout.split("sketch itself")[1].split()[:2]]
    assert found == pytest.approx([0.4833, 0.6060], abs=3e-3)
    folder = tmp_path / "runs" / "04_pix2pix_models"
    assert_drawn(*(folder / f"{name}.png" for name in ("receptive_field", "skips", "patches")))


def test_train_in_a_notebook(few_pairs, tmp_path, monkeypatch, capfd):
    """Broken if stage 5's code, pasted into a notebook, does not train, or writes other files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    cell = {"__name__": "notebook"}
    exec((HERE / "05_pix2pix_train.py").read_text(encoding="utf-8"), cell)
    assert not list(tmp_path.iterdir()), "running the cell already trains"
    run, short = tmp_path / "run", ["--steps-per-epoch", "2", "--epochs", "2", "--filters", "4"]
    cell["main"]([*short, "--dataset", str(few_pairs), "--out", "run"])
    words, errors = capfd.readouterr()
    assert not errors and "\b" not in words, "a progress bar where there is no terminal"
    figures = ["result.png", "losses.png", "samples/epoch_0001.png", "samples/epoch_0002.png"]
    named = ["result.png", "losses.png", "samples", "validation", "generator.weights.h5"]
    assert all(str(Path("run", name)) in words for name in named)
    assert "left halves (sketch), width x height mostly 256x256; trained at 256x256." in words
    pictures = [Path(path).name for path in common.find_pairs(few_pairs)["val"]]
    kinds = ["condition", "generated", "real"]
    assert files(run) == {
        *figures, "generator.weights.h5", "discriminator.weights.h5", "best.weights.h5",
        "options.json", "losses.csv", "metrics.csv", ".lock", "samples", "saved", "validation",
        *(f"saved/step_0000000{step}" for step in (2, 4)),
        *(f"saved/step_0000000{n}/{part}" for n in (2, 4)
          for part in ("losses.csv", "metrics.csv", "state.index", "state.data-00000-of-00001")),
        *(f"validation/{kind}" for kind in kinds),
        *(f"validation/{kind}/{name}.png" for kind in kinds for name in pictures),
    }  # fmt: skip
    assert_drawn(*(run / name for name in figures))
    flags, data = map(json.loads((run / "options.json").read_text()).get, ("flags", "data"))
    assert flags["--loss"] == "l1+cgan" and flags["--direction"] == "AtoB"
    assert (data["train"], data["val"], data["condition"]) == (4, 2, {"kind": "sketch"})
    losses, scores = (common.read_rows(run / f"{n}.csv") for n in ("losses", "metrics"))
    names = ["epoch", "step", "d_fake", "d_real", "g_adversarial", "g_l1"]
    assert [list(row) for row in losses] == [names] * 2 and losses[1]["step"] == 4
    assert all(0 < row["g_l1"] < 2 for row in losses)
    names = [f"{kind}_{name}" for kind in ("val", "condition") for name in ("l1", "psnr", "ssim")]
    assert [list(row) for row in scores] == [["epoch", *names]] * 2
    assert f"L1 {scores[1]['val_l1']:.4f} ({scores[1]['condition_l1']:.4f})" in words


@pytest.mark.parametrize("script", ["01_gan_mnist.py", "02_cgan_mnist.py"])
def test_digits(script, call_main, stage2, tmp_path, request):
    """Broken if stage 1 or 2 does not write its files, or --digit draws another digit.

    The digit is drawn with the weights of the run and the noise of --seed.
    """
    cgan = script == "02_cgan_mnist.py"
    done = call_main(script, "--steps-per-epoch", 4, "--epochs", 2, "--out", "run")
    assert done.returncode == 0 and not done.stderr, done.stderr
    run = tmp_path / "run"
    losses = common.read_rows(run / "losses.csv")
    assert [(row["epoch"], row["step"]) for row in losses] == [(1, 4), (2, 8)]
    assert all(0 < row[name] < 3 for row in losses for name in ("d_real", "g_adversarial"))
    assert ("d_wrong" in losses[0]) == cgan
    assert json.loads((run / "options.json").read_text())["data"]["digits"] == 60000
    assert_drawn(run / "losses.png", run / "samples" / "epoch_0001.png")
    assert (run / "result.png").read_bytes() == (run / "samples/epoch_0002.png").read_bytes()
    if cgan:
        grids = request.getfixturevalue("grids")  # from here on
        done = call_main(script, "--digit", 7, "--seed", 3, "--out", "run")
        assert done.returncode == 0 and "digit_7.png" in done.stdout, done.stderr
        generator = stage2.ConditionalGAN().generator
        generator.load_weights(run / "generator.weights.h5")
        noise = tf.random.stateless_normal((10, 100), seed=(3, 0))
        wanted = generator(noise, tf.one_hot([7] * 10, 10), training=False)
        ((path, (row,), _),) = grids
        assert path == Path("run", "digit_7.png") and same(tf.stack(row), wanted)


@pytest.mark.slow
def test_a_copy_under_another_name(run_script, few_pairs, tmp_path):
    """Broken if a learner's renamed copy of stage 5 fails, or stage 9 refuses its run.

    Keras is set up for JAX, channels first and float16, and Matplotlib for a notebook of another
    Python; a good run still writes nothing to stderr.
    """
    for file, name in (("common.py", "common.py"), ("05_pix2pix_train.py", "my.py")):
        shutil.copy(HERE / file, tmp_path / name)
    settings = {"image_data_format": "channels_first", "floatx": "float16", "backend": "jax"}
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(json.dumps(settings))
    (tmp_path / "matplotlibrc").write_text("text.usetex: True")  # needs LaTeX
    env = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    env |= {"HOME": str(tmp_path), "KERAS_BACKEND": "jax"}
    train = [tmp_path / "my.py", "--epochs", 1, "--steps-per-epoch", 3, "--filters", 4]
    train += ["--dataset", few_pairs, "--out", "runs/x"]
    for command in (train, ["09_results.py", "runs/x"]):
        done = run_script(*command, **env)
        assert done.returncode == 0 and not done.stderr, done.stderr
    assert common.read_rows(tmp_path / "runs" / "x" / "losses.csv")[0]["step"] == 3
    page = tmp_path / "runs" / "09_results" / "index.html"
    assert "<td>--filters<td>4" in page.read_text(encoding="utf-8")
    assert_drawn(page.parent / "compare.png")


def test_nothing_is_installed():
    """Broken if missing packages end in a traceback instead of the command that installs them."""
    code = "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None; import common"
    options = {"capture_output": True, "text": True, "cwd": HERE}
    done = subprocess.run([sys.executable, "-c", code], check=False, **options)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "is not installed. Run: python -m pip install -r requirements.txt" in done.stderr
