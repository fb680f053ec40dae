"""Training that is killed again and again ends as if nothing had happened.

The short form is part of `make slow`; `make torture` kills 20 times at each stage.
"""

import itertools
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent.parent

# Steps of an epoch (two checkpoints in each), and epochs enough for a number of kills.
STAGES = {
    "01_gan_mnist.py": (78, lambda kills: 2 * kills + 1),
    "02_cgan_mnist.py": (78, lambda kills: 2 * kills + 1),
    "05_pix2pix_train.py": (2, lambda kills: kills + 3),
}


def launch(stage, out, kills, flags):
    steps, epochs = STAGES[stage]
    command = [sys.executable, HERE / stage, "--checkpoint-minutes", "0", "--steps-per-epoch", str(steps)]
    command += ["--epochs", str(epochs(kills)), "--out", out, *flags]
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


def checkpoints(run):
    return {path.name for path in (run / "saved").glob("step_*")}


def wait_for_moment(process, run, number, dice):
    """Waits for the moment to kill: at a random time, or while a checkpoint is being written."""
    before = checkpoints(run)
    if number % 4 == 3:  # while it starts
        time.sleep(dice.uniform(0.0, 4.0))
        return
    while process.poll() is None and checkpoints(run) <= before:  # until it got a step further
        time.sleep(0.01)
    if number % 2 == 0:  # in the middle of the next checkpoint
        while process.poll() is None and not (run / "saved" / "unfinished").exists():
            time.sleep(0.0005)
        time.sleep(dice.uniform(0.0, 0.02))
    else:
        time.sleep(dice.uniform(0.0, 1.0))


@pytest.mark.slow
def test_killed_and_restarted(tmp_path, few_pairs, kills, torture_stages):
    """Broken if a run that was killed, at whatever moment, does not go on as if it had not been."""
    for stage in torture_stages:
        flags = ["--dataset", str(few_pairs)] if stage.startswith("05") else []
        dice = random.Random(stage)
        whole, broken = tmp_path / stage / "whole", tmp_path / stage / "broken"
        done = launch(stage, whole, kills, flags)
        words = done.communicate()[0]
        assert done.returncode == 0, words

        in_checkpoint, seen = 0, set()
        for number in range(kills):
            process = launch(stage, broken, kills, flags)
            wait_for_moment(process, broken, number, dice)
            process.kill()
            words = process.communicate()[0]
            assert process.returncode == -9, f"ended before kill {number}: {words}"
            assert "Traceback" not in words and "damaged" not in words
            seen |= {int(name[5:]) for name in checkpoints(broken)}
            in_checkpoint += (broken / "saved" / "unfinished").exists()
        last = launch(stage, broken, kills, flags)
        words = last.communicate()[0]
        assert last.returncode == 0 and "goes on after step" in words, words

        assert any(step % STAGES[stage][0] for step in seen), "no checkpoint within an epoch"
        assert in_checkpoint, "no kill fell into the writing of a checkpoint"
        files = ["losses.csv", "generator.weights.h5", "metrics.csv"][: 3 if stage.startswith("05") else 2]
        files += [path.relative_to(whole) for path in (whole / "saved").glob("*/state*")]
        for file in files:
            assert (broken / file).read_bytes() == (whole / file).read_bytes(), file
        steps = [line.split(",")[1] for line in (broken / "losses.csv").read_text().splitlines()[1:]]
        assert all(int(a) < int(b) for a, b in itertools.pairwise(steps))
        print(f"{stage}: {kills} kills, {in_checkpoint} of them in the writing of a checkpoint: equal bytes")
