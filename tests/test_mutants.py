"""The list of deliberate breaks still fits the code; `make mutants` tries them, which takes long."""

import mutants
import pytest

TEXT = """# a comment

= common.py

a mistake
- WINDOWS = False
+ WINDOWS = None
> test_mutants.py::test_a_list_is_read test_data.py::test_halves[a b]
~ a reason
"""


def test_the_list_of_breaks_fits_the_code():
    """Broken if a changed line of code, or a renamed test, has left a break behind that is not tried."""
    breaks = mutants.read_list(mutants.LIST.read_text(encoding="utf-8"))
    assert not mutants.misfits(breaks)
    code = {path.name for kind in ("py", "html") for path in mutants.HERE.glob(f"*.{kind}")}
    assert len(breaks) >= 150 and {entry.file for entry in breaks} == code
    assert len({(entry.file, entry.old, entry.new) for entry in breaks}) == len(breaks), "one is there twice"


def test_a_list_is_read():
    """Broken if an entry is misread, or one that fits nothing is not told."""
    (entry,) = mutants.read_list(TEXT)
    tests = ["test_mutants.py::test_a_list_is_read", "test_data.py::test_halves[a b]"]
    assert entry == (1, "common.py", "a mistake", "WINDOWS = False", "WINDOWS = None", tests, "a reason")
    assert mutants.misfits([entry]) == []
    for wrong in ({"old": "no such text"}, {"old": "import "}, {"tests": ["test_data.py::test_gone"]}):
        assert len(mutants.misfits([entry._replace(**wrong)])) == 1, wrong
    with pytest.raises(ValueError, match="not understood"):
        mutants.read_list(TEXT.replace("~", "?"))
