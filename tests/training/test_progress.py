"""The bar of a fit, which people see and programs do not."""

import sys
import time

from mgoe.training import FitProgress, progress_bar

NOW = FitProgress(epoch=1, epochs=2, step=5, steps=20, samples_per_second=61234.0, loss=0.69, monitor=0.71)


def test_a_terminal_sees_rate_and_time_left(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    with progress_bar("mgoe", "all.ranking") as show:
        assert show is not None
        time.sleep(0.2)  # a bar changes ten times per second at most
        show(NOW)
    seen = capsys.readouterr().err
    assert all(
        part in seen
        for part in ("mgoe", "epoch 1/2", "61.2 k samples/s", "loss 0.6900", "all.ranking 0.7100", ":")
    )


def test_nothing_is_printed_where_there_is_no_terminal(capsys):
    with progress_bar("mgoe") as show:
        assert show is None
    assert capsys.readouterr() == ("", "")
