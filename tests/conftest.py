"""What the tests share: the numbered scripts as modules, small data, losses with a tolerance."""

import argparse
import contextlib
import gc
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_regressions.common import perform_regression_check

HERE = Path(__file__).parent.parent
sys.path.insert(0, str(HERE))

import common  # noqa: E402

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from PIL import Image  # noqa: E402

gc.freeze()  # imported modules stay, so no collection needs to look through them again

# A shell starts background jobs with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Skips, on other systems, the tests that need a file name, signal or folder of Linux."""
    for item in items:
        if sys.platform != "linux" and item.get_closest_marker("linux"):
            item.add_marker(pytest.mark.skip(reason="needs Linux"))


def stage(name):
    """Returns a fixture: a numbered script as a module, since `import` takes no such name."""
    return pytest.fixture(scope="session")(lambda: importlib.import_module(name))


stage1 = stage("01_gan_mnist")
stage2 = stage("02_cgan_mnist")
stage3 = stage("03_pix2pix_data")
stage4 = stage("04_pix2pix_models")
stage5 = stage("05_pix2pix_train")
stage6 = stage("06_sketch_pad")
stage7 = stage("07_get_pairs")


def same(one, other):
    return bool(tf.reduce_all(one == other))


def difference(one, other):
    return float(tf.reduce_max(tf.abs(one - other)))


def near(one, other, tolerance=1e-5):
    return one.shape == other.shape and difference(one, other) < tolerance


def values(picture, *place):
    """Returns the numbers at a place of a picture as a list."""
    return [float(value) for value in picture[place]]


def as_floats(path):
    """Returns a picture file as (1, height, width, 3) in [-1, 1]."""
    return tf.cast(common.read_picture(path)[tf.newaxis], tf.float32) / 127.5 - 1.0


def pair(mode="RGB", size=(16, 8)):
    """A Pillow image with a red and a blue half."""
    image = Image.new("RGB", size, (200, 30, 30))
    image.paste((20, 40, 220), (size[0] // 2, 0, *size))
    return image.convert(mode)


def turned(orientation):
    """EXIF data with nothing but an orientation, as an option of Pillow's `save`."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def files(folder):
    """Returns everything in a folder, with its contents."""
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.fixture
def run_script(tmp_path):
    """Runs a script as a user does, in an empty folder; `env` adds to the environment."""

    def run(script, *flags, **env):
        command = [sys.executable, HERE / script, *map(str, flags)]
        env["CUDA_VISIBLE_DEVICES"] = "-1"  # keeps a driver's notes out of stderr
        options = {"capture_output": True, "text": True, "timeout": 300}
        return subprocess.run(command, cwd=tmp_path, env=os.environ | env, check=False, **options)

    return run


@pytest.fixture
def call_main(tmp_path, monkeypatch, capsys):
    """Runs a script's main in this process, to save the time of starting another one."""
    locks, lock = [], common.lock
    names = [name for name in ("SIGINT", "SIGTERM", "SIGPIPE") if hasattr(signal, name)]
    handlers = {name: signal.getsignal(getattr(signal, name)) for name in names}

    def lock_and_note(folder):
        file = lock(folder)
        locks.append((file, os.fstat(file)))
        return file

    def unlock():  # as the end of the script's own process would
        while locks:
            file, opened = locks.pop()
            with contextlib.suppress(OSError):  # the script has closed it
                if os.path.samestat(os.fstat(file), opened):  # else the number is another file's
                    os.close(file)

    monkeypatch.setattr(common, "lock", lock_and_note)

    def call(script, *flags):
        unlock()
        keras.utils.clear_session(free_memory=False)  # restarts layer names, as in a new process
        module = importlib.import_module(script.removesuffix(".py"))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script, *map(str, flags)])
        status = 0
        try:
            common.run_main(module.main)
        except SystemExit as end:
            status = end.code or 0
        finally:  # `run_main` sets signals for the whole process
            for name, handler in handlers.items():
                signal.signal(getattr(signal, name), handler)
        return subprocess.CompletedProcess(sys.argv, status, *capsys.readouterr())

    yield call
    unlock()
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def refused(call_main, tmp_path, monkeypatch):
    """Runs a command that must be refused before any training; returns the lines on stderr.

    The exit status is 2, the last line names the script and has `words`, and no file changes.
    Other lines may come before it if each begins with one of `notes`.
    """

    def train(*args, **options):
        raise common.UserError("the mistake got through")

    def refused(script, *flags, words, notes=("usage: ", "  ")):
        before = files(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(common, "train", train)
            done = call_main(script, *flags)
        assert done.returncode == 2, done.stdout + done.stderr
        *others, line = done.stderr.splitlines()
        assert all(other.startswith(notes) for other in others), done.stderr
        assert line.startswith(f"{script}: error: ") and words in line, line
        assert files(tmp_path) == before, "something was written"
        return [*others, line]

    return refused


@pytest.fixture
def grids(monkeypatch):
    """Keeps the arguments of `common.save_grid` in a list: (path, rows, options)."""
    grids = []
    keep = lambda path, rows, **options: grids.append((path, rows, options))  # noqa: E731
    monkeypatch.setattr(common, "save_grid", keep)
    return grids


@pytest.fixture
def arguments_of_train(call_main, monkeypatch):
    """Runs a trainer up to its call of `common.train`; returns the arguments of that call."""
    calls = []

    def train(model, run, batches, args, **rest):
        first = {"model": model, "run": run, "batches": batches, "args": args}
        calls.append(argparse.Namespace(**first, **rest))
        raise common.UserError("far enough")

    def arguments(script, *flags):
        monkeypatch.setattr(common, "train", train)
        done = call_main(script, *flags)
        assert done.stderr.endswith("far enough\n"), done.stderr
        return calls.pop()

    return arguments


@pytest.fixture(scope="session")
def few_pairs(tmp_path_factory):
    """A dataset of 4 training and 2 validation pairs from the embedded ones."""
    folder = tmp_path_factory.mktemp("data") / "few"
    for split, count in (("train", 4), ("val", 2)):
        (folder / split).mkdir(parents=True)
        for file in sorted((HERE / "data" / "emoji" / split).iterdir())[:count]:
            shutil.copy(file, folder / split)
    return folder


@pytest.fixture(scope="session")
def make_run(few_pairs):
    """Makes the folder of a stage 5 run without training: what stages 6, 8 and 9 read."""

    def make(folder, generator, direction="AtoB", flags=None):
        generator(tf.zeros((1, 256, 256, 3)), training=False)
        folder.mkdir(parents=True)
        generator.save_weights(folder / "generator.weights.h5")
        (folder / "metrics.csv").write_text("epoch,val_l1,val_psnr,val_ssim\n1,0.5,10.0,0.5\n")
        pixel = tf.io.encode_png(tf.zeros((8, 8, 3), tf.uint8))
        tf.io.write_file(str(folder / "losses.png"), pixel)
        without_skips = not isinstance(generator, common.UNet)
        usual = {"--dataset": str(few_pairs), "--direction": direction, "--epochs": 1}
        usual |= {"--generator": "encoder-decoder" if without_skips else "unet", "--norm": "batch"}
        usual |= {"--filters": generator.encoder[0].conv.filters, "--size": [256, 256]}
        usual |= {"--loss": "l1+cgan", "--lambda-l1": 100.0, "--augment": "jitter", "--seed": 0}
        data = {"files": "x", "bytes": 1, "train": 4, "val": 2, "condition": {"kind": "sketch"}}
        options = {"stage": "pix2pix", "flags": usual | (flags or {})}
        options |= {"data": data, "versions": {}}
        (folder / "options.json").write_text(json.dumps(options))
        return folder

    return make


def change(run, part, name, value):
    """Changes one of the flags, or of the data, in a run's options.json."""
    options = json.loads((run / "options.json").read_text())
    options[part][name] = value
    (run / "options.json").write_text(json.dumps(options))


@pytest.fixture
def losses_regression(datadir, original_datadir, request):
    """Compares a list of {name: value} with a golden file to a relative 1e-3.

    It is like data_regression with a tolerance, since processors round differently;
    --force-regen rewrites the golden file.
    """

    def check(rows):
        def compare(obtained, expected):
            old, new = json.loads(expected.read_text()), json.loads(obtained.read_text())
            assert [list(row) for row in new] == [list(row) for row in old]
            for step, (new_row, old_row) in enumerate(zip(new, old)):
                assert new_row == pytest.approx(old_row, rel=1e-3), f"step {step}"

        write = lambda path: path.write_text(json.dumps(rows, indent=1) + "\n")  # noqa: E731
        places = {"datadir": datadir, "original_datadir": original_datadir, "request": request}
        perform_regression_check(**places, check_fn=compare, dump_fn=write, extension=".json")

    return check
