"""What do other sizes and widths of the networks cost, and what do they gain?

    python benchmarks/sizes.py [RUN ...]
    python benchmarks/sizes.py --whole

The first prints a table: for each --size and --filters of stage 5 the weights, the seconds of
a step and the peak of memory, batch 1, float32; and for finished runs of the embedded pairs,
such as runs/05_pix2pix, their scores. Each is measured in a process of its own, one after the
other, all of them in three rounds (medians).

The second prints what `06_sketch_pad.py --colour --whole` takes: seconds and the peak of
memory, by the size of the picture and --filters. Untrained networks do for that. From it are
the numbers BYTES_... there. Linux only (/proc). 15 minutes and 5 minutes on 2 cores.
"""

import csv
import importlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent.parent
sys.path.insert(0, str(HERE))  # the parent process does not import TensorFlow, the others do

SIZES = ("256x256", "512x256", "512x512")
FILTERS = (16, 32, 64, 96)
ROUNDS, STEPS = 3, 7
PICTURES = ((1024, 1024), (1500, 1000), (2048, 2048), (4000, 3000))  # width, height
WHOLE_FILTERS = (16, 64)


def peak():
    """Returns the peak of this process's memory in GB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e9


def measure_steps(size, filters):
    """Prints the median seconds of a step, the peak of memory and the number of weights."""
    common = importlib.import_module("common")
    stage5 = importlib.import_module("05_pix2pix_train")
    common.keep_memory()
    model = stage5.Pix2Pix(filters=int(filters))
    model.set_optimizers(common.adam(2e-4, 0.5), common.adam(2e-4, 0.5))
    flags = {"batch_size": 1, "seed": 0, "direction": "AtoB", "augment": "jitter"}
    flags |= {"first_step": 0, "last_step": 10**6, "size": common.image_size(size)}
    take_steps = common.make_train_function(
        model, common.training_pairs(common.find_pairs("openmoji")["train"], **flags)
    )
    times = []
    for _ in range(2 + STEPS):  # the first two trace and fill caches
        started = time.perf_counter()
        take_steps(1)
        times.append(time.perf_counter() - started)
    print(json.dumps([statistics.median(times[2:]), peak(), model.count_params()]))


def in_process(*arguments):
    """Runs this script with some arguments; returns what it printed last."""
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def scores(run):
    """Returns (size, filters) of a finished run, and the last row of its metrics.csv."""
    flags = json.loads((run / "options.json").read_text(encoding="utf-8"))["flags"]
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        *_, last = csv.DictReader(file)
    return (flags.get("--size", "256x256"), flags.get("--filters", 64)), last


def compare_trainings(runs):
    finished = dict(map(scores, runs))
    found = {(size, filters): [] for size in SIZES for filters in FILTERS}
    for number in range(ROUNDS):
        for (size, filters), rows in found.items():
            rows.append(in_process("steps", size, str(filters)))
            print(f"round {number + 1}: {size}, {filters} filters: {rows[-1]}", file=sys.stderr)
    print("| `--size` | `--filters` | million weights | s a step | GB of memory | L1 | PSNR | SSIM |")
    print("|---|---|---|---|---|---|---|---|")
    for (size, filters), rows in found.items():
        seconds, memory = (statistics.median(row[n] for row in rows) for n in (0, 1))
        cells = [size, filters, f"{rows[0][2] / 1e6:.1f}", f"{seconds:.3f}", f"{memory:.2f}"]
        last = finished.get((size, filters))
        formats = (("val_l1", ".4f"), ("val_psnr", ".2f"), ("val_ssim", ".4f"))
        cells += [format(float(last[name]), form) if last else "" for name, form in formats]
        print(f"| {' | '.join(map(str, cells))} |")


def make_run(folder, filters):
    """Makes what stage 6 reads of a run, of an untrained network, and pictures to colour."""
    common = importlib.import_module("common")
    generator = common.UNet(int(filters))
    generator(common.tf.zeros((1, 256, 256, 3)), training=False)
    run = Path(folder, filters)
    run.mkdir(parents=True)
    generator.save_weights(run / "generator.weights.h5")
    (run / "metrics.csv").write_text("epoch,val_l1\n1,0.5\n", encoding="utf-8")
    flags = {"--dataset": "openmoji", "--direction": "AtoB", "--epochs": 1, "--filters": int(filters)}
    options = {"flags": flags, "data": {"script": "05_pix2pix_train.py"}}
    (run / "options.json").write_text(json.dumps(options), encoding="utf-8")
    for width, height in PICTURES:
        noise = common.tf.random.stateless_uniform((height, width, 3), (0, 0), 0, 256, common.tf.int32)
        png = common.tf.io.encode_png(common.tf.cast(noise, common.tf.uint8))
        common.tf.io.write_file(f"{folder}/{width}x{height}.png", png)
    print("0")


def compare_pictures():
    print("| picture | `--filters` | s | GB of memory |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for filters in WHOLE_FILTERS:
            in_process("run", folder, str(filters))
        for width, height in PICTURES:
            for filters in WHOLE_FILTERS:
                flags = ["--run", f"{folder}/{filters}", "--out", f"{folder}/out", "--force", "--whole"]
                flags += ["--colour", f"{folder}/{width}x{height}.png"]
                command = [sys.executable, str(HERE / "06_sketch_pad.py"), *flags]
                with open(f"{folder}/said", "w", encoding="utf-8") as said:
                    to_file = [(os.POSIX_SPAWN_DUP2, said.fileno(), 1)]
                    process = os.posix_spawn(sys.executable, command, os.environ, file_actions=to_file)
                    _, status, usage = os.wait4(process, 0)
                text = Path(folder, "said").read_text(encoding="utf-8")
                if status:
                    raise SystemExit(text)
                seconds, memory = re.search(r"([\d.]+) s,", text)[1], usage.ru_maxrss * 1024 / 1e9
                print(f"| {width}x{height} | {filters} | {seconds} | {memory:.2f} |", flush=True)


if __name__ == "__main__":
    what, *rest = [*sys.argv[1:], ""][:1] + sys.argv[2:]
    if what == "steps":
        measure_steps(*rest)
    elif what == "run":
        make_run(*rest)
    elif what == "--whole":
        compare_pictures()
    else:
        compare_trainings(list(map(Path, sys.argv[1:])))
