"""The course's figures, docs/figures.py: their words in both languages, and their files."""

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import common

import pytest
import tensorflow as tf

FILE = Path(common.__file__).parent / "docs" / "figures.py"
SPEC = importlib.util.spec_from_file_location("course_figures", FILE)
figures = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(figures)


def test_every_word_is_in_both_languages():
    """Broken if a word of the figures is missing in one language, or has the other's letters."""
    for name, (english, korean) in figures.WORDS.items():
        assert english and not re.search("[가-힣]", english), name
        assert re.search("[가-힣]", korean), name


def test_every_figure_uses_the_words(few_pairs, monkeypatch):
    """Broken if a figure asks for a word that is not in the table, or no figure uses a word."""
    picture, logits, used = tf.zeros((256, 256, 3)), tf.zeros((30, 30)), set()
    stubs = {
        "drawn_digits": lambda conditional: (picture, picture, tf.zeros((4, 100))),
        "trained": lambda *_: SimpleNamespace(discriminator=common.PatchGAN(1)),
        "judged": lambda *_: (picture, picture, picture, logits, logits),
        "correlations": lambda dataset: ([0, 70], [1, 0], [1, 0]),
        "generate": lambda generator, condition: condition,
    }
    for name, stub in stubs.items():
        monkeypatch.setattr(figures, name, stub)
    flags = {"--loss": "l1", "--generator": "unet"}
    monkeypatch.setattr(common, "load_generator", lambda run: (None, flags))
    runs = {"losses": ["run"], "architectures": ["run"]}
    args = SimpleNamespace(dataset=str(few_pairs), run=None, **runs)
    for draw in figures.FIGURES.values():
        draw(lambda name: used.add(name) or figures.word("ko", name), args)
    assert used == set(figures.WORDS)


@pytest.mark.filterwarnings("error")  # Matplotlib warns of a letter that its font lacks
@pytest.mark.parametrize("language", ["en", "ko"])
def test_figures_are_drawn(language, tmp_path):
    """Broken if a figure is not written, or its font lacks a letter."""
    if language == "ko" and not figures.font_files():
        pytest.skip("no Korean font here")
    for name in ("log_losses", "l1"):
        path = figures.draw(name, language, SimpleNamespace(out=tmp_path, losses=None))
        assert path.stat().st_size > 10_000


def test_a_missing_font_is_named(monkeypatch):
    """Broken if a missing Korean font is not reported with the package to install."""
    monkeypatch.setattr(figures, "font_files", list)
    with pytest.raises(common.UserError, match="fonts-nanum"):
        figures.main(["--language", "ko"])
