"""What is logged is printed to whom asks, and bars are on a terminal and in a notebook."""

import logging
import time

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


def test_a_bar_is_shown_in_a_notebook(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(progress, "is_notebook", lambda: True)
    for title in ("pairs", "nodes"):
        with ProgressBar(title, 4_000_000, "events") as bar:
            time.sleep(0.15)  # a bar is drawn no oftener than eyes follow
            bar.update(3_000_000, state="almost done", title=f"{title}, 2 of 2")
        shown = capsys.readouterr()
        assert shown.out == ""
        assert f"{title}, 2 of 2:  75%" in shown.err
        assert "3.00M/4.00M" in shown.err
        assert "almost done" in shown.err
        assert shown.err.rpartition("\r")[0].rpartition("\r")[2].strip() == ""  # nothing stays


def test_nothing_is_shown_inside_a_hidden_block(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with hidden():
        assert not shows_bars()
        with ProgressBar("pairs", 4) as bar:
            bar.advance(4)
            bar.update(3, 4, "almost done", "title")
    assert shows_bars()
    assert capsys.readouterr() == ("", "")


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
