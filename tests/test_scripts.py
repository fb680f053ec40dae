"""The scripts, run as a user runs them; what they leave behind is looked into."""

import ast
import csv
import importlib
import json
import signal
from pathlib import Path

import common

import pytest
import tensorflow as tf

HERE = Path(__file__).parent.parent
PARTS = ("index", "data-00000-of-00001")  # of a checkpoint
SCRIPTS = sorted(HERE.glob("[0-9][0-9]_*.py"))


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def picture(path):
    """A written figure; asserts that it is not blank."""
    pixels = tf.io.decode_png(tf.io.read_file(str(path)), channels=3)
    assert float(tf.math.reduce_std(tf.cast(pixels, tf.float32))) > 20, f"{path} is blank"
    return pixels


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_data(call_main, tmp_path):
    """Broken if stage 3 fails on the embedded pairs or prints a wrong table."""
    done = call_main("03_pix2pix_data.py")
    assert done.returncode == 0 and not done.stderr, done.stderr
    words = [line.split() for line in done.stdout.splitlines()]
    assert ["train", "213", "0", "256x256", "(213)"] in words
    assert ["val", "51", "0", "256x256", "(51)"] in words
    (condition,) = [w for w in words if w[:2] == ["train", "condition"]]
    assert condition[2] == condition[3] == condition[4], "a sketch is gray"
    assert condition[-1] == "10.8%"
    for name in ("pairs", "augmentation", "histograms"):
        picture(tmp_path / "runs" / "03_pix2pix_data" / f"{name}.png")


@pytest.mark.slow
def test_models(run_script, tmp_path):
    """Broken if stage 4 fails, or its tables or its measurements say something else."""
    done = run_script("04_pix2pix_models.py", "--steps", 2)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "TensorFlow's start-up notes are on the screen"
    for fact in (
        "(34 - 1) * 2 + 4 = 70",
        "not seen",
        "54,423,811",
        "39,085,315",
        "2,770,433",
        "70x70 pixels",
        "(1, 1, 512)",
        "(30, 30, 1)",
    ):
        assert fact in done.stdout
    # Of the uncoloured sketches, worked out from the six files by Pillow.
    assert done.stdout.split("sketch itself")[1].split()[:2] == ["0.1353", "0.2052"]
    one_with_batchnorm = done.stdout.split("yes")[1].split()
    assert one_with_batchnorm[:2] == ["0.0000", "0.0000"]
    for name in ("receptive_field", "skips", "patches"):
        picture(tmp_path / "runs" / "04_pix2pix_models" / f"{name}.png")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Even though the .* option is set")
def test_narrow_models(call_main, stage4, tmp_path, monkeypatch):
    """Broken if stage 4 does not run through, or if --filters does not reach all three networks."""
    monkeypatch.setattr(stage4, "print_bottleneck", lambda: None)  # has its own tests, and takes long
    tf.config.run_functions_eagerly(True)  # of a single step, making its graph is the longest part
    try:
        done = call_main("04_pix2pix_models.py", "--steps", 1, "--filters", 2, "--out", "out")
    finally:
        tf.config.run_functions_eagerly(False)
    assert done.returncode == 0, done.stderr
    assert "(1, 1, 16)" in done.stdout and "(30, 30, 1)" in done.stdout and "70x70 pixels" in done.stdout
    assert "everything passes through 16 numbers" in done.stdout
    # Both generators' first and last but one blocks, and the PatchGAN's first.
    assert done.stdout.count("(128, 128, 2)") == 5
    for name in ("receptive_field", "skips", "patches"):
        picture(tmp_path / "out" / f"{name}.png")


TRAIN = ["05_pix2pix_train.py", "--steps-per-epoch", 2, "--seed", 3, "--epochs", 2, "--filters", 8]


@pytest.mark.slow
def test_train_in_parts(run_script, call_main, tmp_path, few_pairs, monkeypatch):
    """Broken if a run does not go on, or ends in other numbers than one in one go.

    Ctrl-C in the first step; then, by the same command, the rest: tables and weights must
    be, byte for byte, those of a run in one go.
    """
    flags = [*TRAIN[1:], "--dataset", few_pairs]
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    model_class = importlib.import_module("05_pix2pix_train").Pix2Pix
    step = model_class.train_step

    def stop(model, pair):
        signal.raise_signal(signal.SIGINT)
        return step(model, pair)

    with monkeypatch.context() as patch:
        patch.setattr(model_class, "train_step", stop)  # it sends while it is being traced
        done = call_main(TRAIN[0], *flags, "--out", "parts")
    assert done.returncode == 130 and "Stopped and saved at step 1." in done.stderr
    assert not (parts / "losses.csv").exists(), "a row every tenth step, and after each epoch"
    # As if killed some steps later: rows beyond the checkpoint, the last one cut in writing.
    (parts / "losses.csv").write_text("epoch,step,g_l1,g_adversarial,d_real,d_fake\n1,2,0.1,0.1,0.1,0.1\n2")
    (parts / "metrics.csv").write_text("epoch,val_l1,val_psnr,val_ssim\n1,0.1,0.1,0.1\n2")

    for out in ("parts", "whole"):
        run = run_script if out == "whole" else call_main
        done = run(TRAIN[0], *flags, "--out", out)
        assert done.returncode == 0 and not done.stderr, done.stderr
        assert ("goes on after step 1 (0.50 epochs)" in done.stdout) == (out == "parts")
        assert "\b" not in done.stdout, "a progress bar where there is no terminal"
    same = ["losses.csv", "metrics.csv", "generator.weights.h5", "result.png"]
    for name in [*same, "saved/step_00000004/state.data-00000-of-00001"]:
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name


def test_train(call_main, tmp_path, few_pairs):
    """Broken if a run does not leave its files, or they do not say what they should."""
    whole = tmp_path / "whole"
    done = call_main(*TRAIN, "--dataset", few_pairs, "--out", "whole")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "\b" not in done.stdout, "a progress bar where there is no terminal"
    for name in ("result.png", "losses.png", "generator.weights.h5"):
        assert str(Path("whole", name)) in done.stdout

    pages = {name for name in files(whole) if name.startswith("validation")}
    assert {str(Path(name).parent) for name in pages if name.endswith(".png")} == {
        f"validation/{kind}" for kind in ("condition", "generated", "real")
    }
    assert files(whole) - pages == {
        "index.html",
        "samples",
        "saved",
        "options.json",
        "losses.csv",
        "metrics.csv",
        "losses.png",
        "result.png",
        "samples/epoch_0001.png",
        "samples/epoch_0002.png",
        "generator.weights.h5",
        ".lock",
        ".checked.json",
        *(f"saved/step_0000000{n}" for n in (2, 4)),
        *(f"saved/step_0000000{n}/state.{part}" for n in (2, 4) for part in PARTS),
    }
    options = json.loads((whole / "options.json").read_text())
    assert options["flags"]["--seed"] == 3 and options["flags"]["--loss"] == "l1+cgan"
    contents = options["data"].pop("contents of the data")
    assert len(contents) == 16
    condition = options["data"].pop("condition")
    assert condition["kind"] == "sketch" and condition["line_width"] == pytest.approx(7.1, abs=0.7)
    assert condition["colours"] == []
    assert options["data"] == {"script": "05_pix2pix_train.py", "train": 4, "val": 2}
    assert options["versions"]["tensorflow"] == tf.__version__
    losses = rows(whole / "losses.csv")
    assert [(row["epoch"], row["step"]) for row in losses] == [("1", "2"), ("2", "4")]
    assert set(losses[0]) == {"epoch", "step", "g_l1", "g_adversarial", "d_real", "d_fake"}
    assert all(0 < float(row["g_l1"]) < 2 for row in losses)
    scores = rows(whole / "metrics.csv")
    names = [f"{prefix}_{name}" for prefix in ("val", "condition") for name in ("l1", "psnr", "ssim")]
    assert list(scores[0]) == ["epoch", *names] and len(scores) == 2
    assert 0 < float(scores[-1]["val_ssim"]) < 1
    for name in ("result.png", "losses.png", "samples/epoch_0001.png", "samples/epoch_0002.png"):
        picture(whole / name)

    generator = common.UNet(8)
    blank = tf.ones((1, 256, 256, 3))
    generator(blank, training=False)
    untrained = common.generate(generator, blank)
    generator.load_weights(whole / "generator.weights.h5")
    assert float(tf.reduce_max(tf.abs(common.generate(generator, blank) - untrained))) > 0.01


DIGITS = pytest.mark.parametrize("script", ["01_gan_mnist.py", "02_cgan_mnist.py"])


@DIGITS
def test_digits(script, call_main, tmp_path):
    """Broken if stage 1 or 2 does not leave its files, or stage 2 cannot be asked for a digit."""
    stage = script.removesuffix(".py")
    if stage == "02_cgan_mnist":
        done = call_main(script, "--digit", 7)
        assert done.returncode == 2 and "train one" in done.stderr
    done = call_main(script, "--steps-per-epoch", 4, "--epochs", 2, "--out", "run")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    assert (run / "generator.weights.h5").stat().st_size > 500_000 * 4
    losses = rows(run / "losses.csv")
    assert [(row["epoch"], row["step"]) for row in losses] == [("1", "4"), ("2", "8")]
    assert all(0 < float(row["d_real"]) < 3 and 0 < float(row["g_adversarial"]) < 3 for row in losses)
    assert ("d_wrong" in losses[0]) == (stage == "02_cgan_mnist")
    assert json.loads((run / "options.json").read_text())["data"]["digits"] == 60000
    for name in ("result.png", "losses.png", "samples/epoch_0001.png", "samples/epoch_0002.png"):
        picture(run / name)
    assert (run / "result.png").read_bytes() == (run / "samples" / "epoch_0002.png").read_bytes()
    if stage == "02_cgan_mnist":
        done = call_main(script, "--digit", 7, "--out", "run")
        assert done.returncode == 0 and "digit_7.png" in done.stdout
        picture(run / "digit_7.png")
        assert call_main(script, "--digit", 10).returncode == 2


@pytest.mark.slow
@DIGITS
def test_digits_in_parts(script, run_script, call_main, tmp_path):
    """Broken if stage 1 or 2 does not go on, ignores its seed, or takes another stage's run for its own."""
    for out, epochs in (("parts", 1), ("parts", 2), ("whole", 2)):
        run = run_script if out == "whole" else call_main
        done = run(script, "--steps-per-epoch", 4, "--epochs", epochs, "--out", out)
        assert done.returncode == 0, done.stderr
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    assert (parts / "losses.csv").read_bytes() == (whole / "losses.csv").read_bytes()
    done = call_main(script, "--steps-per-epoch", 4, "--epochs", 2, "--out", "parts")
    assert done.returncode == 0 and "has its 2 epochs" in done.stdout
    assert (parts / "losses.csv").read_bytes() == (whole / "losses.csv").read_bytes()
    other = {"01_gan_mnist.py": "02_cgan_mnist.py", "02_cgan_mnist.py": "01_gan_mnist.py"}[script]
    before = (whole / "options.json").read_bytes()
    done = call_main(other, "--steps-per-epoch", 4, "--epochs", 3, "--out", "whole")
    assert done.returncode == 2 and f"script {script} -> {other}" in done.stderr
    assert (whole / "options.json").read_bytes() == before
    done = call_main(script, "--steps-per-epoch", 4, "--epochs", 1, "--out", "parts", "--fresh")
    assert done.returncode == 0
    assert (tmp_path / "parts.1" / "losses.csv").read_bytes() == (whole / "losses.csv").read_bytes()
    assert rows(parts / "losses.csv") == rows(whole / "losses.csv")[:1]


def imports(path):
    """The modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def test_no_numpy():
    """Broken if a script or a test computes with NumPy."""
    for path in [*HERE.glob("*.py"), *HERE.glob("tests/**/*.py")]:
        assert "numpy" not in imports(path), path
        calls = [n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)]
        assert "numpy" not in calls, path


def test_scripts_share_only_common():
    """Broken if a stage needs another one, or common.py holds what a single stage uses."""
    for path in SCRIPTS:
        assert not [module for module in imports(path) if module[:2].isdigit()]
    users = {}
    for path in [*SCRIPTS, HERE / "common.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
                name = node.id if isinstance(node, ast.Name) else node.attr
                users.setdefault(name, set()).add(path.name)
    for node in ast.parse((HERE / "common.py").read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            used_by = users.get(node.name, set())
            assert len(used_by) >= 2 or used_by == {"common.py"}, f"{node.name}: {used_by}"
