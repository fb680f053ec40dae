"""Breaks the code in one place after another, and sees whether a test notices.

    python tests/mutants.py                     # all breaks of tests/mutants.txt, two at a time
    python tests/mutants.py 05 common.py        # those of some files, by the beginning of their names
    python tests/mutants.py 17 40-45            # those of these numbers
    python tests/mutants.py --check             # nothing is run: does the list still fit the code?

Each break is a mistake that a maintainer could make, with the tests that should see it. It is made
in a copy of the repository in a temporary folder, never here; a test that fails, or that hangs,
kills it. The named tests are run on the code as it is, too: one that fails there would kill all.
Prints the share that was killed, and names those that survived, with the reason why that does no
harm where the list gives one; without a reason, the exit status is 1.
"""

import argparse
import contextlib
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent.parent
LIST = Path(__file__).with_suffix(".txt")
SECONDS = 300.0  # until a test hangs
LEFT_HERE = (".git", ".venv", "data", "runs", "__pycache__", ".*_cache")


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
        tests = re.split(r"\s+(?=test_)", " ".join(parts[">"]))
        breaks.append(Break(len(breaks) + 1, file, mistake, old, new, tests, " ".join(parts["~"])))
    return breaks


def misfits(breaks):
    """Returns what does not fit the code: a text that is not there exactly once, a test that is gone."""
    found = []
    for entry in breaks:
        count = (HERE / entry.file).read_text(encoding="utf-8").count(entry.old) if entry.old else 0
        if count != 1 or entry.old == entry.new:
            found.append(f"{entry.number} {entry.file}: {entry.mistake}: its text is there {count} times")
        for test in entry.tests or ["no test"]:
            file, _, name = test.partition("[")[0].partition("::")
            path = HERE / "tests" / file
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            if not re.search(rf"^def {name}\(", text, re.MULTILINE):
                found.append(f"{entry.number} {entry.file}: {entry.mistake}: {test} is not there")
    return found


def run_tests(folder, tests):
    """Runs tests in a copy; returns "survived", "killed", "hung" or "not run", and the output."""
    options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={folder}.tests"]
    command = [sys.executable, "-m", "pytest", *options, *(f"tests/{test}" for test in tests)]
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}  # it would not notice a change within a second
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(
        command, cwd=folder, env=env, **pipes, encoding="utf-8", errors="replace", start_new_session=True
    )
    try:
        output = process.communicate(timeout=SECONDS)[0]
    except subprocess.TimeoutExpired:
        return "hung", ""
    finally:
        with contextlib.suppress(OSError):  # with what it has started
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    # 4: wrong name of a test, or conftest.py cannot be imported; 5: no test was found
    return {0: "survived", 4: "not run", 5: "not run"}.get(process.returncode, "killed"), output


def try_break(entry, folders):
    """Makes a break in a copy that no other thread uses; returns the entry, what came of it, and the time."""
    started, folder = time.monotonic(), folders.get()
    path = folder / entry.file
    code = path.read_text(encoding="utf-8")
    try:
        path.write_text(code.replace(entry.old, entry.new) if entry.old else code, encoding="utf-8")
        return entry, *run_tests(folder, entry.tests), time.monotonic() - started
    finally:
        path.write_text(code, encoding="utf-8")
        folders.put(folder)


def try_all(breaks, jobs):
    """Tries the breaks in copies of the repository; returns [(entry, what came of it)], in order."""
    tests = sorted({test for entry in breaks for test in entry.tests})
    as_it_is = Break(0, "common.py", "the code as it is", "", "", tests, "")
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(jobs) as pool:
        folders, results = queue.SimpleQueue(), {}
        for number in range(jobs):
            folder = Path(temporary) / f"copy{number}"
            shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns(*LEFT_HERE))
            (folder / "data").symlink_to(HERE / "data")
            folders.put(folder)
        pending = [pool.submit(try_break, entry, folders) for entry in [as_it_is, *breaks]]
        try:
            for done in as_completed(pending):
                entry, result, output, seconds = done.result()
                print(
                    f"{entry.number:4} {result:9}{seconds:4.0f} s  {entry.file}: {entry.mistake}", flush=True
                )
                if result == "not run" or (entry is as_it_is and result != "survived"):
                    print(output)
                    sys.exit("These tests have to run, and to pass on the code as it is.")
                results[entry] = result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return [(entry, results[entry]) for entry in breaks]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("chosen", nargs="*", help="files or numbers (all)")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (2)")
    parser.add_argument("--check", action="store_true", help="only see whether the list fits the code")
    args = parser.parse_args()
    breaks = read_list(LIST.read_text(encoding="utf-8"))
    if problems := misfits(breaks):
        sys.exit("\n".join(problems))
    spans = [re.fullmatch(r"(\d{1,3})(?:-(\d+))?", word) for word in args.chosen if word[:1] != "0"]
    spans = [(int(span[1]), int(span[2] or span[1])) for span in spans if span]
    names = tuple(word for word in args.chosen if word[:1] == "0" or not word[0].isdigit())
    if args.chosen:
        numbers = {number for first, last in spans for number in range(first, last + 1)}
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
