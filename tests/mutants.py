"""Breaks the code in one place after another, and sees whether a test notices.

    python tests/mutants.py                     # all breaks of tests/mutants.txt, two at a time
    python tests/mutants.py 05 common.py        # those of some files, by the beginning of their names
    python tests/mutants.py 17 40-45            # those of these numbers
    python tests/mutants.py --check             # nothing is run: does the list still fit the code?

Each break is a mistake that a maintainer could make, with the tests that should see it. It is made
in a copy of the repository in a temporary folder, never here; a test that fails, or that hangs,
kills it. The named tests are run on the code as it is, too: one that fails there would kill all.
Prints the share that was killed, and names those that survived, with the reason why that does no
harm where the list gives one; without a reason, the exit status is 1. For Linux and macOS.
"""

import argparse
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent.parent
LIST = Path(__file__).with_suffix(".txt")
SECONDS = 300  # until the tests of a break hang
LEFT_HERE = (".git", ".venv", "data", "runs", "__pycache__", ".*_cache")
# Importing TensorFlow takes longer than most tests, so a process that has done so is forked for each
# break. It is told a folder, a file for what is printed, the seconds until a test hangs, and pytest's
# arguments; it answers with the status.
RUNNER = """
import json, os, signal, sys
import keras, matplotlib.figure, PIL.Image, pytest, tensorflow
for line in sys.stdin:
    folder, printed, seconds, arguments = json.loads(line)
    child = os.fork()
    if not child:
        os.setsid()
        signal.alarm(seconds)
        os.chdir(folder)
        sys.path[0] = folder
        for stream in (1, 2):
            os.dup2(os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        status = pytest.main(arguments)
        sys.stdout.flush()
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        os.killpg(child, signal.SIGKILL)  # with what it has started
    except OSError:
        pass
    print(status, flush=True)
"""


class Break(NamedTuple):
    """An entry of the list."""

    number: int
    file: str
    mistake: str  # in words
    old: str
    new: str
    tests: list  # as pytest takes them, in tests/
    harmless: str  # why it may survive, or ""


def read_list(text):
    """Returns the Breaks of a list; its form is described at its head."""
    breaks, file = [], ""
    for entry in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n", "", text).strip()):
        mistake, *lines = entry.split("\n")
        if mistake.startswith("="):
            file = mistake.strip("= ")
            continue
        parts = {mark: [line[2:] for line in lines if line[:1] == mark] for mark in "-+>~"}
        if {line[:1] for line in lines} - parts.keys():
            raise ValueError(f"not understood: {entry}")
        old, new = ("\n".join(parts[mark]) for mark in "-+")
        tests = re.split(r"\s+(?=test_|robustness/)", " ".join(parts[">"]))
        breaks.append(Break(len(breaks) + 1, file, mistake, old, new, tests, " ".join(parts["~"])))
    return breaks


def misfits(breaks):
    """Returns what does not fit the code: a text that is not there exactly once, a test that is gone."""
    found = []
    for entry in breaks:
        count = (HERE / entry.file).read_text(encoding="utf-8").count(entry.old) if entry.old else 0
        if count != 1 or entry.old == entry.new:
            found.append(f"{entry.number} {entry.file}: {entry.mistake}: its text is there {count} times")
        for test in entry.tests:
            file, _, name = test.partition("[")[0].partition("::")
            path = HERE / "tests" / file
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            if not re.search(rf"^def {name}\(", text, re.MULTILINE):
                found.append(f"{entry.number} {entry.file}: {entry.mistake}: {test!r} is not there")
    return found


class Copy:
    """A copy of the repository, and a process that runs tests in it."""

    def __init__(self, folder):
        self.folder, self.printed = folder, folder.with_suffix(".txt")
        shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns(*LEFT_HERE))
        (folder / "data").symlink_to(HERE / "data")
        # No bytecode: a change within a second, of the same length, would not be noticed.
        env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "TF_CPP_MIN_LOG_LEVEL": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.runner = subprocess.Popen([sys.executable, "-c", RUNNER], **pipes, env=env, encoding="utf-8")

    def run_with(self, entry):
        """Makes a break, runs its tests and takes it back; returns "survived", "killed" or "not run"."""
        path = self.folder / entry.file
        code = path.read_text(encoding="utf-8")
        self.printed.write_text("", encoding="utf-8")
        arguments = [
            *(["-x"] if entry.old else []),
            "-q",
            "-p",
            "no:cacheprovider",
            f"--basetemp={self.folder}.tests",
        ]
        arguments += [f"tests/{test}" for test in entry.tests]
        try:
            path.write_text(code.replace(entry.old, entry.new) if entry.old else code, encoding="utf-8")
            seconds = SECONDS if entry.old else 20 * SECONDS
            message = json.dumps([str(self.folder), str(self.printed), seconds, arguments])
            print(message, file=self.runner.stdin, flush=True)
            status = int(self.runner.stdout.readline())
        finally:
            path.write_text(code, encoding="utf-8")
        # 4: wrong name of a test, or conftest.py cannot be imported; 5: no test was found
        return {0: "survived", 4: "not run", 5: "not run"}.get(status, "killed")


def try_all(breaks, jobs):
    """Tries the breaks in copies of the repository; returns [(entry, what came of it)], in order."""
    tests = sorted({test for entry in breaks for test in entry.tests})
    as_it_is = Break(0, "common.py", "the code as it is", "", "", tests, "")
    copies, results, failed = queue.SimpleQueue(), {}, []

    def try_one(entry):
        started, copy = time.monotonic(), copies.get()
        result = copy.run_with(entry)
        words = copy.printed.read_text(encoding="utf-8", errors="replace")
        copies.put(copy)
        print(
            f"{entry.number:4} {result:9}{time.monotonic() - started:4.0f} s  {entry.file}: {entry.mistake}"
        )
        if result == "not run" or (entry is as_it_is and result != "survived"):
            failed.append(f"{words}\nThese tests have to run, and to pass on the code as it is.")
        results[entry.number] = result

    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(jobs) as pool:
        runners = [Copy(Path(temporary) / f"copy{number}") for number in range(jobs)]
        for copy in runners:
            copies.put(copy)
        pending = [pool.submit(try_one, entry) for entry in [as_it_is, *breaks]]
        try:
            for done in as_completed(pending):
                done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for copy in runners:
                copy.runner.communicate()
    if failed:
        sys.exit("\n".join(failed))
    return [(entry, results[entry.number]) for entry in breaks]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("chosen", nargs="*", help="files or numbers (all)")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (2)")
    parser.add_argument("--check", action="store_true", help="only see whether the list fits the code")
    args = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    breaks = read_list(LIST.read_text(encoding="utf-8"))
    if problems := misfits(breaks):
        sys.exit("\n".join(problems))
    if args.chosen:
        spans = [re.fullmatch(r"([1-9]\d*)(?:-(\d+))?", word) for word in args.chosen]
        numbers = {n for span in spans if span for n in range(int(span[1]), int(span[2] or span[1]) + 1)}
        names = tuple(word for word, span in zip(args.chosen, spans) if not span)
        breaks = [entry for entry in breaks if entry.number in numbers or entry.file.startswith(names)]
    print(f"{len(breaks)} breaks")
    if args.check:
        return
    results = try_all(breaks, args.jobs)
    survivors = [entry for entry, result in results if result == "survived"]
    print(
        f"{len(results) - len(survivors)} of {len(results)} killed: {1 - len(survivors) / len(results):.1%}"
    )
    for entry in survivors:
        print(f"{entry.number} {entry.file}: {entry.mistake}: {entry.harmless or 'NO TEST SEES IT'}")
    sys.exit(not all(entry.harmless for entry in survivors))


if __name__ == "__main__":
    main()
