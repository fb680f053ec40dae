"""The pages that readers begin with: links, figures, commands, and the two languages."""

import importlib
import json
import re
import shlex

import pytest
from conftest import HERE

PAGES = [HERE / "README.md", HERE / "README.ko.md", *sorted((HERE / "docs").rglob("*.md"))]
COURSE = sorted((HERE / "docs" / "course").glob("*.md"))  # each is in ko/, too
SCRIPTS = sorted(path.name for path in HERE.glob("0*.py"))
NOTEBOOK = json.loads((HERE / "docs" / "colab.ipynb").read_text(encoding="utf-8"))
CELLS = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
CODE = "\n".join("".join(cell["source"]) for cell in CELLS)
FIGURE = r'<img src="([^"]+)"'


def text(page):
    return page.read_text(encoding="utf-8")


def anchors(page):
    """The names that GitHub gives the headings of a page."""
    headings = re.findall(r"(?m)^#+ (.*)", text(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_figures_exist(page):
    """Broken if a link on a page leads nowhere, or a picture is missing."""
    targets = re.findall(r"\]\(([^)\s]+)\)", text(page))
    targets += re.findall(FIGURE, text(page))
    for target in targets:
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            file = page.parent / name if name else page
            assert file.exists() and (not anchor or anchor in anchors(file)), target


@pytest.fixture
def parser(script, monkeypatch):
    """The parser of a script; `main([])` hands it over before anything is done."""
    found = []

    def parse(parser, args=None, namespace=None):
        assert args == [], "the script takes its flags from sys.argv, not from `main`'s argument"
        found.append(parser)
        raise SystemExit

    monkeypatch.setattr("argparse.ArgumentParser.parse_args", parse)
    with pytest.raises(SystemExit):
        importlib.import_module(script[:-3]).main([])
    return found[0]


@pytest.mark.parametrize("script", SCRIPTS)
def test_documented_commands_are_understood(script, parser):
    """Broken if a page, or the notebook, shows a flag that its script does not have."""
    commands = re.findall(rf"python {script}([^`\n#]*)", "\n".join([*map(text, PAGES), CODE]))
    assert commands, "no page shows how to call it"
    for flags in sorted(set(commands)):
        for word in shlex.split(flags.strip(" :,.&;|")):
            assert not word.startswith("--") or word in parser._option_string_actions, flags


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script, parser):
    """Broken if a script's help does not say its stage or how to call it, or explain a flag."""
    help_text = parser.format_help()
    assert f"python {script}" in help_text and re.search(r"Stage \d: ", help_text)
    for action in parser._actions:
        assert action.help, action.option_strings


def test_notebook():
    """Broken if the notebook has outputs, or runs a script that does not exist."""
    assert not any(cell["outputs"] or cell["execution_count"] for cell in CELLS)
    scripts = set(re.findall(r"(?m)^!python (\S+)", CODE))
    assert len(scripts) >= 6 and scripts <= set(SCRIPTS)


def test_make_targets_exist():
    """Broken if a page or `make help` names a target that the Makefile does not have."""
    makefile = text(HERE / "Makefile")
    named = re.findall(r'(?m)^\t@echo "make (\w+)', makefile)
    named += re.findall(r"(?:^    |`)make (\w+)", "\n".join(map(text, PAGES)), flags=re.M)
    assert named and set(named) <= set(re.findall(r"(?m)^(\w+):", makefile))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_quoted_code_is_the_scripts_own(page):
    """Broken if a page quotes code that the scripts no longer have."""
    files = [HERE / "common.py", *(HERE / name for name in SCRIPTS)]
    lines = [line.strip() for file in files for line in text(file).splitlines()]
    for block in re.findall(r"```python\n(.*?)```", text(page), flags=re.S):
        wanted = [line.strip() for line in block.splitlines()]
        starts = [n for n, line in enumerate(lines) if line == wanted[0]]
        assert any(lines[n : n + len(wanted)] == wanted for n in starts), block


ALIKE = {
    "headings": r"(?m)^(#+) ",
    "code": r"(?s)```.*?```",
    "formulas": r"\$([^$]+)\$",
    "commands": r"(?m)^    (python .*)|`(python [^`]*)`",
    "answers": r"(<details>)",
    "rows": r"(?m)^(\|)",
}


@pytest.mark.parametrize("what", ALIKE)
@pytest.mark.parametrize("page", COURSE, ids=lambda page: page.name)
def test_courses_are_told_alike(page, what):
    """Broken if one language has a part that the other lacks."""
    pages = [text(page), text(page.parent / "ko" / page.name)]
    ours, others = ([str(found) for found in re.findall(ALIKE[what], words)] for words in pages)
    assert set(ours) == set(others) or what == "formulas"
    if what not in {"formulas", "code"}:  # a letter like $z$ may be named once more
        assert len(ours) == len(others)
