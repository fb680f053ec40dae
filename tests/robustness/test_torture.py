"""Trainings that are stopped from outside and continued end with the same bytes.

As part of `make slow`, each trainer gets one Ctrl-C and one kill; `make torture` stops each of
them 20 times, at different moments.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import common

import pytest
import tensorflow as tf
from conftest import HERE

STOPS = int(os.environ.get("STOPS", "2"))
STEPS = {"01_gan_mnist.py": 78, "02_cgan_mnist.py": 78, "05_pix2pix_train.py": 4}  # per epoch
SCRIPTS = pytest.mark.parametrize("script", STEPS)

# Runs a script that saves a checkpoint after every call of its step.
OFTEN = """
import runpy, sys
sys.path.insert(0, sys.argv[1])
import common
common.CHECKPOINT_MINUTES = 0.0
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def launch(script, out, pairs, often=True):
    command = [sys.executable, *(["-c", OFTEN, HERE] if often else []), HERE / script]
    command += ["--epochs", STOPS + 1, "--steps-per-epoch", STEPS[script], "--out", out]
    command += ["--dataset", pairs, "--filters", 4] if script[:2] == "05" else []
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, command)), env=env, **pipes)


def end(process, status=0):
    """Waits for the end; returns what was written to stdout and to stderr."""
    words, errors = process.communicate(timeout=300)
    assert process.returncode == status, words + errors
    return words, errors


def checkpoints(run):
    return {path.name for path in (run / "saved").glob("step_*")}


@pytest.fixture(scope="module")
def whole_run(few_pairs, tmp_path_factory):
    """Returns the uninterrupted run of a script, made once for each script."""
    runs = {}

    def make(script):
        if script not in runs:
            runs[script] = tmp_path_factory.mktemp("whole") / script
            errors = end(launch(script, runs[script], few_pairs, often=False))[1]
            assert not errors, "a good run writes to stderr"
        return runs[script]

    return make


def assert_same_bytes(run, whole):
    names = [name for name in ("losses.csv", "metrics.csv") if (whole / name).exists()]
    names += ["generator.weights.h5", "result.png"]
    newest = Path("saved", max(checkpoints(whole)))
    names += [newest / path.name for path in (whole / newest).iterdir()]
    differ = [n for n in names if (run / n).read_bytes() != (whole / n).read_bytes()]
    assert not differ


def wait_for_moment(process, run, number, dice):
    """Waits until the run has made progress; every second time, until it writes a checkpoint."""
    if number % 4 == 3:  # while it starts
        time.sleep(dice.uniform(0.0, 4.0))
        return
    before = checkpoints(run) | {"step_00000000"}
    while process.poll() is None and checkpoints(run) <= before:
        time.sleep(0.002)
    while number % 2 and process.poll() is None and not (run / "saved" / "unfinished").exists():
        time.sleep(0.0005)
    time.sleep(dice.uniform(0.0, 0.02))


@pytest.mark.slow
@SCRIPTS
def test_stopped_and_continued(script, whole_run, few_pairs, tmp_path):
    """Broken if a run that was stopped at any moment and continued ends with different bytes."""
    run, dice = tmp_path / "run", random.Random(script)
    for number in range(STOPS):
        process = launch(script, run, few_pairs)
        wait_for_moment(process, run, number, dice)
        polite = number % 4 == 0
        process.send_signal(signal.SIGINT if polite else signal.SIGKILL)
        words, errors = end(process, 130 if polite else -9)
        if polite:
            step = int(re.search(r"Stopped at step (\d+), saved\. Run the same", errors)[1])
            assert f"step_{step:08d}" in checkpoints(run)
        assert "Traceback" not in errors and "damaged" not in errors
    assert any(int(name[5:]) % STEPS[script] for name in checkpoints(run)), "none within an epoch"
    words, errors = end(launch(script, run, few_pairs))
    assert "continues after step" in words and not errors
    assert_same_bytes(run, whole_run(script))


@pytest.mark.slow
def test_damaged_picture(whole_run, few_pairs, tmp_path):
    """Broken if a picture that fails in step 4 is not named, or the three steps before are lost.

    The repaired file has another size, but the same pixels: the run's bytes are the same.
    """
    script, pairs, run = "05_pix2pix_train.py", tmp_path / "pairs", tmp_path / "run"
    shutil.copytree(few_pairs, pairs)
    (pairs / "dataset.json").write_text('{"condition": "sketch"}')  # so no picture is read before
    paths = common.find_pairs(pairs)["train"]
    path = Path(paths[int(common.shuffled(tf.constant(3, tf.int64), len(paths), 0))])
    pixels, whole = tf.io.decode_png(tf.io.read_file(str(path))), path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    *notes, line = end(launch(script, run, pairs, often=False), 2)[1].splitlines()
    assert line == f"{script}: error: cannot be used: {path} (damaged); {common.CURE}"
    assert all(common.NOTES.match(note) for note in notes), "more than TensorFlow's notes"
    assert max(checkpoints(run)) == "step_00000003"
    tf.io.write_file(str(path), tf.io.encode_png(pixels, compression=1))
    words, errors = end(launch(script, run, pairs, often=False))
    assert "continues after step 3 (0.75 epochs)" in words
    assert re.fullmatch(r"Warning: the data changed from \d+ to \d+ bytes; .*\n", errors)
    assert_same_bytes(run, whole_run(script))
