"""How long until the first step of stage 5, how much memory, and does it grow?

    python benchmarks/start.py [steps]

Runs stage 5 on the embedded pairs in a process of its own (100 steps, or as many as are
said), and watches it from outside: the time from the command to the first finished step,
the time to the answer to a wrong flag, and its resident memory, at the first step, in the
middle and at the end. Linux only (/proc).
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent.parent
SCRIPT = HERE / "05_pix2pix_train.py"


def memory(process, field):
    """Returns a field of /proc/PID/status in GB."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1e6


def rows(run):
    """Returns the number of rows in losses.csv."""
    table = run / "losses.csv"
    return len(table.read_text(encoding="utf-8").splitlines()) - 1 if table.exists() else 0


def watch(process, run, wanted):
    """Waits for so many rows of losses, one an epoch of one step; returns the seconds it took."""
    started = time.perf_counter()
    while rows(run) < wanted:
        if process.poll() is not None:
            raise SystemExit("stage 5 ended early")
        time.sleep(0.02)
    return time.perf_counter() - started


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    started = time.perf_counter()
    subprocess.run([sys.executable, SCRIPT, "--epochs", "none"], capture_output=True, check=False)
    print(f"a wrong flag answered after {time.perf_counter() - started:.1f} s")

    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "first"
        flags = ["--epochs", "1", "--steps-per-epoch", "1", "--out", first]
        with subprocess.Popen([sys.executable, SCRIPT, *flags], stdout=subprocess.DEVNULL) as process:
            print(f"first step finished after {watch(process, first, 1):.1f} s")
            process.kill()

        run = Path(folder) / "run"  # a row every tenth step
        flags = ["--epochs", "1000", "--steps-per-epoch", "200", "--out", run]
        with subprocess.Popen([sys.executable, SCRIPT, *flags], stdout=subprocess.DEVNULL) as process:
            for row in (1, steps // 20, steps // 10):
                watch(process, run, row)
                print(f"memory after step {10 * row}: {memory(process, 'VmRSS'):.2f} GB")
            print(f"peak: {memory(process, 'VmHWM'):.2f} GB")
            process.kill()


if __name__ == "__main__":
    main()
