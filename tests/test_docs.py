"""The pages that readers begin with: links, figures, commands, and the two languages side by side."""

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


def text(page):
    return page.read_text(encoding="utf-8")


def anchors(page):
    """The names that GitHub gives the headings of a page."""
    headings = re.findall(r"(?m)^#+ (.*)", text(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_figures_exist(page):
    """Broken if a reader meets a link, or a picture, that leads nowhere."""
    targets = re.findall(r"\]\(([^)\s]+)\)", text(page)) + re.findall(r'<img src="([^"]+)"', text(page))
    for target in targets:
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_figure_is_shown():
    """Broken if docs/ keeps a picture that no page shows any more."""
    shown = {name for page in PAGES for name in re.findall(r'<img src="(?:docs/)?([^"]+)"', text(page))}
    assert {path.name for path in (HERE / "docs").glob("*.png")} == shown


def commands():
    """Each command of the pages that names a script: (script, its flags as they are written)."""
    found = re.findall(r"python (0\d_\w+\.py)([^`\n#]*)", "\n".join(map(text, PAGES)))
    return sorted({(script, flags.strip(" :,.&;|")) for script, flags in found})


@pytest.fixture(scope="module")
def known_flags():
    """The flags of each script, as its parser has them."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for script in SCRIPTS:
            stage = importlib.import_module(script[:-3])
            parsers = []

            def parse(parser, *args, parsers=parsers):
                parsers.append(parser)
                raise SystemExit(0)

            patch.setattr("argparse.ArgumentParser.parse_args", parse)
            patch.setattr("sys.argv", [script])
            with pytest.raises(SystemExit):
                stage.main()
            found[script] = parsers[0]
    return found


def test_documented_commands_are_understood(known_flags):
    """Broken if a page shows a command that its script does not take."""
    assert len(commands()) > 30
    for script, flags in commands():
        given = [word for word in shlex.split(flags) if word.startswith("--")]
        for flag in given:
            assert flag in known_flags[script]._option_string_actions, f"{script} {flags}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags", [("--seed", 1, "--out", "runs/data_seed1"), ("--direction", "BtoA", "--out", "runs/data_BtoA")]
)
def test_fast_commands_of_the_course(flags, call_main):
    """Broken if an experiment of stage 3, as the course has it, does not run."""
    written = " ".join(map(str, flags))
    assert f"python 03_pix2pix_data.py {written}`" in text(COURSES[0])
    done = call_main("03_pix2pix_data.py", *flags)
    assert done.returncode == 0, done.stderr
    assert ("--direction AtoB" in done.stdout) == ("BtoA" in flags)  # the hint that the course tells of


@pytest.mark.parametrize("course", COURSES, ids=lambda page: page.name)
def test_code_of_the_course_is_the_scripts_own(course):
    """Broken if the course explains code that the scripts do not have any more."""
    code = "\n".join((HERE / name).read_text(encoding="utf-8") for name in ["common.py", *SCRIPTS])
    blocks = re.findall(r"```python\n(.*?)```", text(course), flags=re.S)
    assert len(blocks) == 6
    for block in blocks:
        assert block in code, block


def test_courses_are_told_alike():
    """Broken if one language has a stage, figure, formula, command or experiment that the other lacks."""
    english, korean = map(text, COURSES)
    for pattern in (
        r"(?m)^(#+) ",  # headings, by their level
        r'<img src="([^"]+)"',
        r"(?s)```.*?```",
        r"\$([^$]+)\$",  # formulas
        r"(?m)^    (python .*)",
        r"`(python [^`]*)`",
        r"(?m)^(- )",
        r"(?m)^(\d\. )",
        r"(<details>)",
        r"\]\(([^)]+)\)",
    ):
        # What there is in both languages is linked in the reader's own.
        other, ours = (
            [
                re.sub(r"(README|course)(\.ko)?\.md[#\w-]*", r"\1", found)
                for found in re.findall(pattern, page)
            ]
            for page in (korean, english)
        )
        assert set(ours) == set(other), pattern
        if "$" not in pattern:  # a letter like $z$ may be named once more
            assert len(ours) == len(other), pattern
    rows = [len(re.findall(r"(?m)^\|", page)) for page in (english, korean)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("page", "most"), [("README.md", 180), ("docs/course.md", 350), ("docs/course.ko.md", 350)]
)
def test_pages_stay_short(page, most):
    """Broken if a page has outgrown a first visit, or an evening."""
    assert len(text(HERE / page).splitlines()) <= most


def test_make_targets_exist():
    """Broken if a page names a make target that the Makefile has not."""
    targets = set(re.findall(r"(?m)^(\w+):", text(HERE / "Makefile")))
    named = {name for page in PAGES for name in re.findall(r"(?:^    |`)make (\w+)", text(page), flags=re.M)}
    assert named and named <= targets, named - targets


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script, known_flags):
    """Broken if a script's help does not say what it does and how to call it, or leaves out a flag."""
    parser = known_flags[script]
    help_text = parser.format_help()
    assert f"python {script}" in help_text and re.search(r"Stage \d: ", help_text)
    for action in parser._actions:
        assert action.help, action.option_strings
