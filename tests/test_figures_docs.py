"""The course's figures, docs/figures.py: their words in both languages, and their files."""

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import common

import pytest

FILE = Path(common.__file__).parent / "docs" / "figures.py"
SPEC = importlib.util.spec_from_file_location("course_figures", FILE)
figures = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(figures)


def test_every_word_is_in_both_languages():
    """Broken if a word of the figures is missing in one language, or has the other's letters."""
    for name, (english, korean) in figures.WORDS.items():
        assert english and not re.search("[가-힣]", english), name
        assert re.search("[가-힣]", korean), name


@pytest.mark.filterwarnings("error")  # Matplotlib warns of a letter that its font lacks
@pytest.mark.parametrize("language", ["en", "ko"])
def test_figures_are_drawn(language, tmp_path):
    """Broken if a figure is not written, or its font lacks a letter."""
    if language == "ko" and not figures.font_files():
        pytest.skip("no Korean font here")
    for name in ("log_losses", "l1"):
        path = figures.draw(name, language, SimpleNamespace(out=tmp_path, losses=None))
        assert path.stat().st_size > 10_000
