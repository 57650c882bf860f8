"""What is logged is printed to whom asks, and bars are on a terminal, or in one line of a running cell."""

import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from mgoe._util import progress
from mgoe._util.progress import ProgressBar, hidden, shown, shows_bars


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_shown_on_a_terminal_and_nowhere_else(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    with ProgressBar("pairs", 4_000_000, "events") as bar:
        bar.advance(1_000_000)
        bar.update(3_000_000, 4_000_000, "almost done")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("pairs" in shown.err) == terminal


class Cell:
    """A cell of a notebook that runs: the texts that its outputs had, in order."""

    def __init__(self):
        self.outputs: list[list[str]] = []

    def display(self, data: dict[str, str], raw: bool, display_id: bool) -> Any:
        texts = [data["text/plain"]]
        self.outputs.append(texts)
        return SimpleNamespace(update=lambda data, raw: texts.append(data["text/plain"]))


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    found = Cell()
    shell = SimpleNamespace(execution_count=1)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=found.display))
    monkeypatch.setattr(progress, "is_notebook", lambda: True)
    monkeypatch.setattr(progress, "PAUSE", 0)
    progress._line_of.cache_clear()
    return found


def test_bars_of_a_notebook_share_one_line_of_the_cell(cell: Cell, capsys: pytest.CaptureFixture[str]):
    for title in ("pairs", "nodes"):
        with ProgressBar(title, 4_000_000, "events") as bar:
            bar.advance(1_000_000)
            bar.update(3_000_000, 4_000_000, "almost done")
    [texts] = cell.outputs
    assert ["pairs" in text for text in texts] == [False, *[True] * 3, *[False] * 5]
    assert "almost done" in texts[3]
    assert "nodes" in texts[5]
    assert texts[4] == texts[-1] == ""
    assert capsys.readouterr() == ("", "")


def test_a_stage_is_named_at_once_and_shown_no_oftener_than_eyes_follow(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(progress, "PAUSE", 60)
    with ProgressBar("pairs", 4) as bar:
        for _ in range(4):
            bar.advance(1)
    [[empty, named, last]] = cell.outputs
    assert "pairs" in named
    assert empty == last == ""


def test_nothing_is_shown_inside_a_hidden_block(cell: Cell):
    with hidden():
        assert not shows_bars()
        with ProgressBar("pairs", 4) as bar:
            bar.advance(4)
    assert shows_bars()
    assert cell.outputs == []


def test_lines_are_printed_inside_a_block_that_shows_them_alone(capsys: pytest.CaptureFixture[str]):
    logger = logging.getLogger("mgoe.any.module")
    logger.info("before")
    with shown("stderr"):
        logger.info("building 100 % of [bold]")
        with hidden():
            logger.info("hidden")
        with shown("stdout"):
            logger.info("twice")
        logging.getLogger("other").info("of another library")
    logger.info("after")
    assert capsys.readouterr() == ("twice\n", "building 100 % of [bold]\ntwice\n")


def test_a_line_is_printed_above_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with shown("stderr"), ProgressBar("pairs", 4) as bar:
        bar.advance(2)
        before = capsys.readouterr().err
        logging.getLogger("mgoe.graph").info("needs much disk")
        after = capsys.readouterr().err
    assert "pairs" in before
    assert "needs much disk\n" in after.replace("\r", "")
    assert after.rindex("pairs") > after.index("needs much disk")  # the bar is drawn again below it
