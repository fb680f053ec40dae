"""The pages that readers begin with: links, figures, commands, and the two languages."""

import importlib
import re
import shlex
from pathlib import Path

import common

import pytest

HERE = Path(common.__file__).parent
PAGES = [HERE / "README.md", HERE / "README.ko.md", *sorted((HERE / "docs").glob("*.md"))]
COURSES = [HERE / "docs" / "course.md", HERE / "docs" / "course.ko.md"]
SCRIPTS = sorted(path.name for path in HERE.glob("0*.py"))
FIGURE = r'<img src="(?:docs/)?([^"]+)"'


def text(page):
    return page.read_text(encoding="utf-8")


def anchors(page):
    """The names that GitHub gives the headings of a page."""
    headings = re.findall(r"(?m)^#+ (.*)", text(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_figures_exist(page):
    """Broken if a reader meets a link or a picture that leads nowhere."""
    targets = re.findall(r"\]\(([^)\s]+)\)", text(page))
    targets += re.findall(r'<img src="([^"]+)"', text(page))
    for target in targets:
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            file = page.parent / name if name else page
            assert file.exists() and (not anchor or anchor in anchors(file)), target


def test_every_figure_is_shown():
    """Broken if docs/ keeps a picture that no page shows any more."""
    shown = {name for page in PAGES for name in re.findall(FIGURE, text(page))}
    assert {path.name for path in (HERE / "docs").glob("*.png")} == shown


@pytest.fixture
def parser(script, monkeypatch):
    """The parser of a script; `main([])` hands it over before anything is done."""
    found = []

    def parse(parser, args=None, namespace=None):
        assert args == [], "the script takes its flags from sys.argv, which a notebook has not"
        found.append(parser)
        raise SystemExit

    monkeypatch.setattr("argparse.ArgumentParser.parse_args", parse)
    with pytest.raises(SystemExit):
        importlib.import_module(script[:-3]).main([])
    return found[0]


@pytest.mark.parametrize("script", SCRIPTS)
def test_documented_commands_are_understood(script, parser):
    """Broken if a page shows a command that its script does not take."""
    commands = re.findall(rf"python {script}([^`\n#]*)", "\n".join(map(text, PAGES)))
    assert commands, "no page shows how to call it"
    for flags in sorted(set(commands)):
        for word in shlex.split(flags.strip(" :,.&;|")):
            assert not word.startswith("--") or word in parser._option_string_actions, flags


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script, parser):
    """Broken if a script's help does not say what it does, how to call it, or leaves out a flag."""
    help_text = parser.format_help()
    assert f"python {script}" in help_text and re.search(r"Stage \d: ", help_text)
    for action in parser._actions:
        assert action.help, action.option_strings


def test_make_targets_exist():
    """Broken if a page or `make help` names a target that the Makefile does not have."""
    makefile = text(HERE / "Makefile")
    named = re.findall(r'(?m)^\t@echo "make (\w+)', makefile)
    named += re.findall(r"(?:^    |`)make (\w+)", "\n".join(map(text, PAGES)), flags=re.M)
    assert named and set(named) <= set(re.findall(r"(?m)^(\w+):", makefile))


@pytest.mark.parametrize("course", COURSES, ids=lambda page: page.name)
def test_code_of_the_course_is_the_scripts_own(course):
    """Broken if the course explains code that the scripts do not have any more."""
    code = "\n".join(text(HERE / name) for name in ["common.py", *SCRIPTS])
    blocks = re.findall(r"```python\n(.*?)```", text(course), flags=re.S)
    assert blocks and [block for block in blocks if block not in code] == []


ALIKE = {
    "headings": r"(?m)^(#+) ",
    "figures": FIGURE,
    "code": r"(?s)```.*?```",
    "formulas": r"\$([^$]+)\$",
    "commands": r"(?m)^    (python .*)|`(python [^`]*)`",
    "lists": r"(?m)^(- |\d\. )",
    "experiments": r"(<details>)",
    "links": r"\]\(([^)]+)\)",
    "rows": r"(?m)^(\|)",
}


@pytest.mark.parametrize("what", ALIKE)
def test_courses_are_told_alike(what):
    """Broken if one language has a part that the other lacks; links lead to the reader's own."""

    def parts(page):
        own = r"(README|course)(\.ko)?\.md[#\w-]*"
        return [re.sub(own, r"\1", str(found)) for found in re.findall(ALIKE[what], text(page))]

    ours, others = map(parts, COURSES)
    assert ours and set(ours) == set(others)
    if what != "formulas":  # a letter like $z$ may be named once more
        assert len(ours) == len(others)
