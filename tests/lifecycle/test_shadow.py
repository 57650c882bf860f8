"""What is said of a shadow's log equals a direct computation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from typer.testing import CliRunner

import mgoe
from mgoe.cli import app
from mgoe.errors import ConfigError, DataError
from mgoe.lifecycle import Registry, ShadowReport, compare_shadow
from mgoe.lifecycle.acceptance import compare
from mgoe.lifecycle.shadow import _latest_before
from mgoe.metrics import auc
from mgoe.serving import Event, open_log
from mgoe.serving.events.answer_log import Answer, AnswerLog
from mgoe.serving.events.exposure import Exposure, Label
from mgoe.serving.events.log import ServiceLog

HOUR, START, OTHER = 3_600_000_000, 1_780_000_000_000_000, "0123456789ab"
ROWS = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.integers(0, 12)))


@given(answers=ROWS, others=ROWS, window=st.integers(1, 6))
def test_what_follows_an_answer_belongs_to_the_latest_one(
    answers: list[tuple[str, str, int]], others: list[tuple[str, str, int]], window: int
):
    users, items, times = (list(one) for one in zip(*answers, strict=True)) if answers else ([], [], [])
    held = pd.DataFrame({"user": users, "item": items, "time": np.array(times, np.int64)})
    user, item, time = (list(one) for one in zip(*others, strict=True)) if others else ([], [], [])
    found = _latest_before(held, user, item, np.array(time, np.int64), window)
    for row, (of, thing, at) in zip(found, others, strict=True):
        fitting = [
            (when, -number) for number, (u, i, when) in enumerate(answers)
            if (u, i) == (of, thing) and at - window <= when <= at
        ]  # fmt: skip
        assert row == (-max(fitting)[1] if fitting else -1)


def noted(bundle: mgoe.Bundle, state: Path, requests: int = 120) -> list[Answer]:
    """Records of as many requests: three items that were shown, and two others."""
    rng, log, found = np.random.default_rng(0), AnswerLog(state), []
    users = bundle.encoders.users.ids(np.arange(40)).to_pylist()
    items = bundle.encoders.items.ids(np.arange(30)).to_pylist()
    for number in range(requests):
        scores = rng.random((2, 5, len(bundle.tasks))).astype(np.float32)
        found.append(
            Answer(
                START + number * HOUR, f"r{number}", "rank", str(users[number % 40]), None, None, None, None,
                False, "shadow", OTHER, "ok", None, 1, [str(items[n]) for n in rng.permutation(30)[:5]],
                served=bundle.name, shown=3, scores=scores[1].tolist(), served_scores=scores[0].tolist(),
            )
        )  # fmt: skip
        # also of another version, and what the request got
        log.append(found[-1], found[-1]._replace(version="another"), found[-1]._replace(use="answer"))
    log.close()
    return found


def check(report: ShadowReport, records: Sequence[Answer], rows: np.ndarray, labels: np.ndarray) -> None:
    """Compare a report with what follows from its records, and from the labels of some of their pairs."""
    scores, theirs = (
        np.array([getattr(one, name) for one in records]) for name in ("served_scores", "scores")
    )
    assert (report.requests, report.pairs, report.labelled) == (len(records), 2 * len(records), len(rows))
    for t, one in enumerate(report.differences):
        assert_allclose(
            (one.candidate, one.current), (theirs[:, 3:, t].mean(), scores[:, 3:, t].mean()), rtol=1e-6
        )
        ranks = [of[:, 3:, t].ravel().argsort().argsort() for of in (scores, theirs)]
        assert one.correlation == pytest.approx(np.corrcoef(*ranks)[0, 1])
    flat = [of.reshape(-1, of.shape[-1])[rows] for of in (theirs, scores)]
    users = np.repeat([one.user or "" for one in records], 5)[rows]
    for one in report.compared:
        if one.metric == "auc":
            t = [difference.task for difference in report.differences].index(one.task)
            assert one.candidate == pytest.approx(auc(labels[:, t], flat[0][:, t]))
            assert one.current == pytest.approx(auc(labels[:, t], flat[1][:, t]))
    assert {one.metric for one in report.compared} >= {"auc", "gauc"}
    assert len(np.unique(users)) == 40


def test_events_after_an_answer_are_its_labels(registry: Registry, tmp_path: Path):
    current = mgoe.Bundle.open(registry.place("current"))
    records, events, rng = noted(current, tmp_path), open_log(tmp_path), np.random.default_rng(1)
    done = []
    for row in range(5 * len(records)):  # shown or not, in time or too late
        record, place = records[row // 5], row % 5
        late, task = bool(rng.integers(2)), int(rng.integers(2))
        if rng.random() < 0.5:
            time = record.time + (3 * HOUR if late else HOUR // 2)
            done.append((row, task, late))
            events.append(
                [Event(int(record.user or ""), int(record.items[place]), current.tasks[task], time, str(row))]
            )
    now = records[99].time + 2 * HOUR
    found = compare_shadow(OTHER, current, tmp_path, str(tmp_path), "2h", now)
    rows = np.array([row for row in range(500) if row % 5 < 3])
    labels = np.zeros((600, 2))
    for row, task, late in done:
        labels[row, task] += not late
    check(found, records, rows, labels[rows])
    users = np.unique([records[row // 5].user or "" for row in rows], return_inverse=True)[1]
    theirs, ours = (
        np.concatenate([getattr(one, name) for one in records])[rows] for name in ("scores", "served_scores")
    )
    assert found.compared == compare(theirs, ours, labels[rows], users, current.settings.tasks)
    events.close()


def test_exposures_after_an_answer_carry_its_labels(shown: Path, tmp_path: Path):
    current = mgoe.load(shown / "bundle")
    records, rng = noted(current, tmp_path), np.random.default_rng(1)
    log = ServiceLog(tmp_path / "log.sqlite", HOUR)
    rows, labels = [], []
    for row in range(5 * len(records)):
        record, place = records[row // 5], row % 5
        click, buy, stay = int(rng.integers(2)), int(rng.integers(2)), float(rng.random())
        early = rng.random() < 0.2
        time = record.time + (-HOUR if early else HOUR // 2)
        exposure = Exposure(f"r{row}", record.user or "", record.items[place], time)
        known = {"click": click, "buy": buy, "stay": stay}
        log.append(
            (),
            [exposure],
            [Label(f"r{row}", "", exposure.item, task, time + 1, value) for task, value in known.items()],
            now=record.time + HOUR // 2 + 1,
        )
        if not early:
            rows.append(row)
            labels.append([click, buy if click else np.nan, stay])
    now = records[-1].time + 100 * HOUR
    found = compare_shadow(OTHER, current, tmp_path, str(tmp_path), "50m", now)
    assert set(found.calibration) == {"click", "buy"}
    check(found, records, np.array(rows), np.array(labels))
    assert {(one.task, one.metric) for one in found.compared} >= {("buy", "auc"), ("stay", "rmse")}
    log.close()


def test_the_command(registry: Registry, finished: Path, tmp_path: Path):
    """The shadow's version and the one that answered are named by their aliases."""
    words = ["registry", "compare", str(registry.path), "current"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    current = mgoe.Bundle.open(registry.place("current"))
    state = registry.path / "current.state"
    open_log(state).close()
    records = noted(current, state)
    name = registry.aliases["current"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert f"must hold requests that {name} scored beside {name}, found 120 of {OTHER}" in refused.output
    log = AnswerLog(state)
    log.append(records[0]._replace(version=name))
    log.close()
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    assert ShadowReport.model_validate_json(done.stdout).labelled == 3


def test_what_cannot_be_compared_is_one_sentence(registry: Registry, tmp_path: Path):
    current = mgoe.Bundle.open(registry.place("current"))
    with pytest.raises(
        DataError, match=r"answers: must hold requests that .* beside .*, found none; name the"
    ):
        compare_shadow(OTHER, current, tmp_path, str(tmp_path))
    noted(current, tmp_path, 1)
    with pytest.raises(ConfigError, match="window: length: must be a whole number"):
        compare_shadow(OTHER, current, tmp_path, str(tmp_path), "soon")
    assert_array_equal(
        _latest_before(
            pd.DataFrame({"user": [], "item": [], "time": np.empty(0, np.int64)}),
            [],
            [],
            np.empty(0, np.int64),
            1,
        ),
        [],
    )
