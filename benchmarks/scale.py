"""How do the time and the memory of stage 5 grow: with the batch, the size, and the number of pairs?

    python benchmarks/scale.py [--quick]

For each --size and --batch-size of stage 5, float32: the median seconds of a step and the peak
of memory, in a process of its own; those that there is no memory for are left out. Then the
command of stage 5 itself on folders of 1,000, 10,000 and 50,000 pairs (the embedded ones, again
and again, no two files alike), started twice: the seconds until all pictures are checked, and
until the first step is done.

Prints one table and draws it as docs/scale.png. Linux only (/proc). A quarter of an hour on 2
cores, and 3 GB of disk for a while; --quick: the smallest of each, a minute, and no figure.
"""

import importlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

HERE = Path(__file__).parent.parent
sys.path.insert(0, str(HERE))

SIZES = ("256x256", "512x512")
BATCHES = (1, 2, 4, 8, 16)
PAIRS = (1_000, 10_000, 50_000)
STEPS = 3
SCRIPT = HERE / "05_pix2pix_train.py"


def memory(field, process="self"):
    """Returns a field of /proc/PID/status in GB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024 / 1e9


def measure_steps(size, batch):
    """Prints the median seconds of a step and the peak of memory; null if there is too little."""
    common, stage5 = (importlib.import_module(name) for name in ("common", "05_pix2pix_train"))
    size, pairs = common.image_size(size), common.find_pairs("openmoji")["train"]
    try:
        stage5.refuse_too_large(Namespace(size=size, batch_size=int(batch), filters=common.FILTERS))
    except common.UserError:
        print("null")
        return
    common.keep_memory()
    model = stage5.Pix2Pix()
    model.set_optimizers(common.adam(2e-4, 0.5), common.adam(2e-4, 0.5))
    flags = {"batch_size": int(batch), "seed": 0, "direction": "AtoB", "augment": "jitter", "size": size}
    batches = common.training_pairs(pairs, **flags, first_step=0, last_step=10**6)
    take_steps, times = common.make_train_function(model, batches), []
    for _ in range(2 + STEPS):  # the first two trace and fill caches
        started = time.perf_counter()
        take_steps(1)
        times.append(time.perf_counter() - started)
    print(json.dumps([statistics.median(times[2:]), memory("VmHWM")]))


def in_process(size, batch):
    """Returns what `measure_steps` prints, in a process of its own."""
    command = [sys.executable, __file__, size, str(batch)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def make_pairs(folder, count):
    """Writes the embedded pairs again and again, each with its number behind the picture's end."""
    pictures = [path.read_bytes() for path in sorted((HERE / "data" / "openmoji" / "train").iterdir())]
    for split, numbers in (("val", range(count // 50)), ("train", range(count // 50, count))):
        (folder / split).mkdir(parents=True)
        for n in numbers:
            picture = pictures[n % len(pictures)] + str(n).encode()
            (folder / split / f"{n:06}.png").write_bytes(picture)


def start(dataset, run):
    """Runs stage 5 up to its first step.

    Returns:
        Seconds until what was checked is kept, seconds until the first step is done, peak of memory.
    """
    checked, losses = run / ".checked.json", run / "losses.csv"
    earlier = checked.stat().st_ino if checked.exists() else None
    losses.unlink(missing_ok=True)
    flags = ["--dataset", dataset, "--out", run, "--epochs", "1", "--steps-per-epoch", "1"]
    waits = [lambda: checked.exists() and checked.stat().st_ino != earlier, losses.exists]
    times, started = [], time.perf_counter()
    with subprocess.Popen([sys.executable, SCRIPT, *flags], stdout=subprocess.DEVNULL) as process:
        for there in waits:
            while not there():
                if process.poll() is not None:
                    raise SystemExit("stage 5 ended early")
                time.sleep(0.02)
            times.append(time.perf_counter() - started)
        peak = memory("VmHWM", process.pid)
        process.kill()
    return [*times, peak]


def report(text, row):
    """Prints a row of the table, of numbers that may be missing."""
    cells = [format(value, ".3g") if value else "" for value in row]
    print(f"| {text} | {' | '.join(cells)} |", flush=True)


def limits(axis):
    """Returns the lowest and highest value drawn, with some room."""
    values = [value for line in axis.lines for value in line.get_ydata()]
    return min(values) / 1.2, max(values) * 1.2


def draw(steps, starts, title):
    """Draws docs/scale.png."""
    common = importlib.import_module("common")
    figure = common.Figure((12, 3.8), layout="constrained")
    figure.suptitle(title, fontsize=10)
    of_step, of_memory, of_start = figure.subplots(1, 3)
    for size in dict.fromkeys(size for size, _ in steps):
        batches = [batch for other, batch in steps if other == size]
        for axis, column in ((of_step, 0), (of_memory, 1)):
            axis.plot(batches, [steps[size, batch][column] for batch in batches], marker=".", label=size)
    for number, name in enumerate(("first", "second")):
        counts = [count for count, which in starts if which == name]
        colour = f"C{number}"
        for column, style, what in ((0, "-", "pictures checked"), (1, ":", "first step done")):
            seconds = [starts[count, name][column] for count in counts]
            axis_style = {"color": colour, "linestyle": style, "marker": ".", "label": f"{name}: {what}"}
            of_start.plot(counts, seconds, **axis_style)
    for axis, ticks in ((of_step, BATCHES), (of_memory, BATCHES), (of_start, PAIRS)):
        axis.set(xscale="log", yscale="log")
        axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks], minor=False)
        axis.set_xticks([], minor=True)
        axis.set_yticks([n * 10**k for k in (-1, 0, 1, 2) for n in (1, 2, 5)])
        axis.set_yticks([], minor=True)
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set_ylim(*limits(axis))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    of_step.set(title="seconds a step", xlabel="--batch-size")
    of_memory.set(title="GB of memory, the peak", xlabel="--batch-size")
    of_start.set(title="seconds from the command", xlabel="pairs")
    common.save_figure(figure, HERE / "docs" / "scale.png")


def main(quick):
    processor = importlib.import_module("common").processor_name()
    title = f"{processor}, {len(os.sched_getaffinity(0))} cores, float32"
    print(f"{title}\n\n| | s | s, first step done | s a picture | GB of memory |\n|---|---|---|---|---|")
    steps, starts = {}, {}
    for size in SIZES[: 1 if quick else None]:
        for batch in BATCHES[: 2 if quick else None]:
            found = in_process(size, batch)
            if found:
                steps[size, batch] = found
                report(f"a step, {size}, batch {batch}", [found[0], None, found[0] / batch, found[1]])
            else:
                print(f"| a step, {size}, batch {batch} | no memory for it | | | |", flush=True)
    for count in PAIRS[: 1 if quick else None]:
        with tempfile.TemporaryDirectory() as folder:
            make_pairs(Path(folder, "pairs"), count)
            for name in ("first", "second"):
                found = start(Path(folder, "pairs"), Path(folder, "run"))
                starts[count, name] = found
                report(f"{name} start, {count:,} pairs checked", [*found[:2], None, found[2]])
    if not quick:
        draw(steps, starts, title)
        print("\ndocs/scale.png")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure_steps(*sys.argv[1:])
    else:
        main(quick=sys.argv[1:] == ["--quick"])
