"""Does training ever wait for its data? The input pipeline alone, against a train step.

    python benchmarks/input.py

Pairs per second that `training_pairs` delivers (read, decode, resize, jitter), on one
core and on two, from JPEG pairs of 512x256 made of the embedded ones; and the pairs per
second that stage 5 consumes at batch size 1 on two cores. Each in a process of its own,
one after the other; medians of 5 rounds.
"""

import importlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if len(sys.argv) > 1:  # before TensorFlow counts the cores
    if not hasattr(os, "sched_setaffinity"):
        sys.exit("benchmarks/input.py: only Linux can keep a process on one core")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[2])])
sys.path.insert(0, str(Path(__file__).parent.parent))

import common  # noqa: E402

import tensorflow as tf  # noqa: E402

ROUNDS = 5


def pairs_a_second(work, count):
    """The median over the rounds of `count` pairs by the seconds that `work()` takes."""
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        rates.append(count / (time.perf_counter() - started))
    return statistics.median(rates)


def measure(what, folder):
    flags = {"batch_size": 1, "seed": 0, "direction": "AtoB", "augment": "jitter"}
    if what == "reading":
        paths = common.list_pictures(folder)
        batches = common.training_pairs(paths, **flags, first_step=0, last_step=400)
        work, count = lambda: [None for _ in batches], 400
    else:
        paths = common.list_pictures(folder)[:5]
        batches = list(common.training_pairs(paths, **flags, first_step=0, last_step=5))
        model = importlib.import_module("05_pix2pix_train").Pix2Pix()
        model.set_optimizers(common.adam(2e-4, 0.5), common.adam(2e-4, 0.5))
        step = tf.function(model.train_step)
        work, count = lambda: [step(batch) for batch in batches], 5
    work()  # traces, fills caches
    print(pairs_a_second(work, count))


def in_process(what, cores, folder):
    command = [sys.executable, __file__, what, cores, folder]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(common.find_pairs("openmoji")["train"]):
            jpeg = tf.io.encode_jpeg(common.decode_picture(path), quality=95)
            tf.io.write_file(f"{folder}/{number}.jpg", jpeg)
        one, two = (in_process("reading", cores, folder) for cores in "12")
        training = in_process("training", "2", folder)
    print(f"{'pairs a second':30}{'by training':>14}")
    print(f"{'reading, 1 core':20}{one:10.1f}{one / training:13.0f}x")
    print(f"{'reading, 2 cores':20}{two:10.1f}{two / training:13.0f}x")
    print(f"{'training, 2 cores':20}{training:10.1f}{1:13.0f}x")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        measure(sys.argv[1], sys.argv[3])
