"""Grades one stage's exercise: prints a line for each part that is right, wrong or still to come.

    python tests/exercises/grade.py 4
    python tests/exercises/grade.py 4 my_file.py

The checks are in check_N.py beside this file, and pytest runs them.
"""

import importlib.util
import json
import re
import sys
import traceback
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def load(path):
    """Returns a learner's file as a module."""
    spec = importlib.util.spec_from_file_location(f"answer_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def explain(error, path):
    """Returns what went wrong in a learner's file as one line: "next: ..." or "wrong: ..."."""
    text = re.sub(r"\x1b\[\dm", "", str(error))
    if "Error encountered:" in text:  # Keras puts its own words around the message
        text = text.split("Error encountered:")[-1]
    elif "Exception encountered when calling" in text:
        text = text.split("\n\n")[1]
    text = (text.strip().splitlines() or ["no message"])[0]
    if isinstance(error, NotImplementedError):
        return f"next:  {text}"
    if isinstance(error, AssertionError):
        return f"wrong: {text}"
    if isinstance(error, SyntaxError):
        return f"wrong: line {error.lineno}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
             if frame.filename == str(path)]  # fmt: skip
    where = f"line {lines[-1]}: " if lines else ""
    return f"wrong: {where}{type(error).__name__}: {text}"


def near(found, wanted):
    """Returns whether a number is within a thousandth of the wanted one."""
    return abs(float(found) - wanted) < 1e-3 * max(1.0, abs(wanted))


def golden(file):
    """Returns the rows of numbers in one of the tests' golden files."""
    return json.loads((HERE.parent / file).read_text())


def check_losses(losses, wanted, told):
    """Compares losses with {name: (value, meaning)}; `told` says for which logits."""
    for name, (value, meaning) in wanted.items():
        assert name in losses, f'the returned losses have no "{name}"'
        assert near(losses[name], value), (
            f"{name} is {float(losses[name]):.3f}. {told} it should be {value:.3f}, {meaning}"
        )


def check_first_losses(step, batches, file, cause):
    """Checks the losses of the first training steps; `cause` says why they may differ."""
    for batch, row in zip(batches, golden(file), strict=True):
        losses = {name: float(loss) for name, loss in step(batch).items()}
        for name, value in row.items():
            assert losses[name] == pytest.approx(value, rel=1e-3), (
                f"{name} is {losses[name]:.4f}, but {value:.4f} in the script{cause}"
            )


class Grader:
    """A pytest plugin: passes the learner's file to the checks, and prints a line for each."""

    def __init__(self, path):
        self.path, self.told, self.failed = path, set(), False

    @pytest.fixture
    def answer(self):
        return load(self.path)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        if self.failed and "golden" in item.name:
            pytest.skip("fix the rest first")  # it would only repeat that something is wrong

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        line = None
        if report.failed:
            self.failed = True
            line = explain(call.excinfo.value, self.path)
        elif call.when == "call" and report.passed:
            line = f"right: {item.function.__doc__}"
        if line and line not in self.told:
            self.told.add(line)
            print(line)
        return report


def main(argv):
    if not argv or argv[0] not in set("12345"):
        sys.exit("Which exercise? For example: make exercise N=4")
    path = Path(argv[1]) if argv[1:] else next((ROOT / "exercises").glob(f"{argv[0]}_*.py"))
    sys.path.insert(0, str(ROOT))
    print(f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:", flush=True)
    options = ["-qq", "-s", "-p", "no:terminalreporter", "--tb=no", "-rN", "--no-header"]
    grader = Grader(path.resolve())
    check = str(HERE / f"check_{argv[0]}.py")
    ended = pytest.main([*options, "--rootdir", str(ROOT), check], plugins=[grader])
    if not grader.failed and (ended or not grader.told):
        print("Not graded: the checks were stopped. Run the same command, and let it finish.")
    elif not grader.failed:
        print("All of it is right. The scripts' own code is one way to write it; yours is another.")
    return int(ended != 0 or not grader.told)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
