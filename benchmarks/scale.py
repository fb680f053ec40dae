"""How do time and memory of stage 5 grow: with the batch, the size and the number of pairs?

    python benchmarks/scale.py [--quick]

For each size and batch size, in float32 and a process of its own, it measures the median seconds
of a step and the peak memory. Then it runs stage 5 on folders of 1,000, 10,000 and 50,000 pairs
(the embedded ones, repeated) and measures the seconds until the first step is done.

Prints a table and draws it as runs/scale.png. Linux only (/proc). Takes five to ten minutes on 2
cores and 3 GB of disk; --quick: 256x256, batches 1 and 2, 1,000 pairs, a minute, no figure.
"""

import importlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent.parent
sys.path.insert(0, str(HERE))

SIZES = (256, 512)
BATCHES = (1, 2, 4, 8)
PAIRS = (1_000, 10_000, 50_000)
STEPS = 3
SCRIPT = HERE / "05_pix2pix_train.py"


def measure_step(side, batch):
    """Prints the median seconds of a step and the peak of memory in GB, as JSON."""
    common, stage5 = (importlib.import_module(name) for name in ("common", "05_pix2pix_train"))
    common.tune_processor()
    model = stage5.Pix2Pix()
    model.generator_optimizer = common.adam(model.generator, 2e-4, 0.5)
    model.discriminator_optimizer = common.adam(model.discriminator, 2e-4, 0.5)
    flags = {"batch_size": batch, "seed": 0, "direction": "AtoB", "augment": "jitter"}
    paths, flags["size"] = common.find_pairs("emoji")["train"], (side, side)
    batches = common.training_pairs(paths, **flags, first_step=0, last_step=10**6)
    take_step, times = common.make_train_function(model, batches), []
    for _ in range(2 + STEPS):  # the first two trace and fill caches
        started = time.perf_counter()
        take_step()
        times.append(time.perf_counter() - started)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e9
    print(json.dumps([statistics.median(times[2:]), peak]))


def seconds_to_start(count):
    """Returns the seconds until stage 5 has taken its first step on `count` pairs."""
    pictures = sorted((HERE / "data" / "emoji" / "train").iterdir())
    with tempfile.TemporaryDirectory() as folder:
        for split, number in (("val", 50), ("train", count)):
            (Path(folder) / split).mkdir()
            for n in range(number):
                name = f"{n:06}{pictures[0].suffix}"
                (Path(folder) / split / name).write_bytes(pictures[n % len(pictures)].read_bytes())
        run = Path(folder, "run")
        flags = ["--dataset", folder, "--out", run, "--epochs", "1", "--steps-per-epoch", "1"]
        command, started = [sys.executable, SCRIPT, *flags], time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while not (run / "losses.csv").exists():
                if process.poll() is not None:
                    sys.exit("stage 5 ended early")
                time.sleep(0.05)
            process.kill()
        return time.perf_counter() - started


def draw(steps, starts):
    """Draws runs/scale.png."""
    common = importlib.import_module("common")
    figure = common.Figure((12, 3.8), layout="constrained")
    of_step, of_memory, of_start = figure.subplots(1, 3)
    for side in dict.fromkeys(side for side, _ in steps):
        found = {batch: row for (other, batch), row in steps.items() if other == side}
        for axis, column in ((of_step, 0), (of_memory, 1)):
            axis.plot(found.keys(), [row[column] for row in found.values()], ".-", label=side)
    of_start.plot(starts.keys(), starts.values(), ".-")
    for axis, ticks in ((of_step, BATCHES), (of_memory, BATCHES), (of_start, PAIRS)):
        axis.set_xscale("log")
        axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks], minor=False)
        axis.set_xticks([], minor=True)
        axis.set_ylim(0)
        axis.grid(alpha=0.3)
    of_step.legend(title="--size")
    of_step.set(title="seconds a step", xlabel="--batch-size")
    of_memory.set(title="GB of memory, the peak", xlabel="--batch-size")
    of_start.set(title="seconds to the first step", xlabel="pairs")
    (HERE / "runs").mkdir(exist_ok=True)
    common.save_figure(figure, HERE / "runs" / "scale.png")


def main(quick):
    steps, starts = {}, {}
    print("| | seconds | GB |\n|---|---|---|")
    for side in SIZES[: 1 if quick else None]:
        for batch in BATCHES[: 2 if quick else None]:
            command = [sys.executable, __file__, str(side), str(batch)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            steps[side, batch] = seconds, peak = json.loads(done.stdout.splitlines()[-1])
            print(f"| a step, {side}x{side}, batch {batch} | {seconds:.2f} | {peak:.1f} |")
    for count in PAIRS[: 1 if quick else None]:
        starts[count] = seconds_to_start(count)
        print(f"| start, {count:,} pairs | {starts[count]:.1f} | |", flush=True)
    if not quick:
        draw(steps, starts)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure_step(int(sys.argv[1]), int(sys.argv[2]))
    else:
        main(quick=sys.argv[1:] == ["--quick"])
