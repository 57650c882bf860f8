"""The progress bar writes to a terminal only."""

import pytest

from mgoe._util.progress import ProgressBar


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
