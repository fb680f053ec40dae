"""The project keeps its shape: small files, the lesson first, one shared module, no NumPy."""

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent
SCRIPTS = sorted(HERE.glob("[0-9][0-9]_*.py"))
LINES = {"01": 140, "02": 220, "03": 220, "04": 290, "05": 280, "06": 350, "07": 560, "08": 160}
LINES |= {"09": 200, "common": 1450}  # at most
LESSON_LINES = 760  # of common.py, at most; its machinery comes after


def tree(path):
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def imports(path):
    """The modules that a file imports."""
    for node in tree(path):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", [*SCRIPTS, HERE / "common.py"], ids=lambda path: path.name)
def test_files_stay_small(path):
    """Broken if a file grows beyond its limit: to add a line there, remove another one."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LINES[path.stem.split("_")[0]]


def test_lesson_comes_first():
    """Broken if a learner has to read past machinery to find a part of the lesson."""
    lines = (HERE / "common.py").read_text(encoding="utf-8").splitlines()
    banners = [(n, line) for n, line in enumerate(lines, start=1) if line.startswith("# === ")]
    assert [line[6:].split(".")[0] for _, line in banners] == [str(n) for n in range(1, 14)]
    assert banners[6][0] <= LESSON_LINES, "section 7 is the first of the machinery"


def test_no_numpy():
    """Broken if a script or a test imports NumPy, or calls `numpy()` on a tensor."""
    for path in [*HERE.glob("*.py"), *HERE.glob("tests/**/*.py")]:
        assert "numpy" not in imports(path), path
        assert "numpy" not in {n.attr for n in tree(path) if isinstance(n, ast.Attribute)}, path


def test_scripts_share_only_common():
    """Broken if one stage imports another, or common.py has code that only one stage uses."""
    for path in SCRIPTS:
        assert not [module for module in imports(path) if module[:2].isdigit()], path
    users = {}
    for path in [*SCRIPTS, HERE / "common.py"]:
        for node in tree(path):
            if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
                name = node.id if isinstance(node, ast.Name) else node.attr
                users.setdefault(name, set()).add(path.name)
    for node in ast.parse((HERE / "common.py").read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            used_by = users.get(node.name, set())
            assert len(used_by) > 1 or used_by == {"common.py"}, f"{node.name}: {used_by}"
