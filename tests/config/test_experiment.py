"""The settings of an experiment."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import check_settings, load_experiments
from mgoe.config.experiment import ExperimentSettings
from mgoe.errors import ConfigError

ARMS = [{"name": "frozen", "share": 0.5}, {"name": "daily", "bundle": "bundles/daily", "share": 0.5}]


def experiment(**changed: object) -> ExperimentSettings:
    return check_settings(ExperimentSettings, {"id": "one", "arms": ARMS} | changed, "e.yaml")


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"arms": [ARMS[0] | {"share": 0.6}, ARMS[1]]}, "the shares must sum to 1, found 1.1"),
        ({"arms": [ARMS[0], ARMS[1] | {"name": "frozen"}]}, "found 'frozen' twice"),
        ({"arms": [ARMS[0] | {"share": 1}]}, "must hold two at least, or one and `shadow`, found one"),
        ({"shadow": {"bundle": "b", "share": 0}}, "greater than 0"),
        ({"arms": []}, "at least 1 item"),
        (
            {"arms": [ARMS[0], ARMS[1] | {"share": 1.5}]},
            "share: Input should be less than or equal to 1",
        ),
        ({"arms": [ARMS[0], ARMS[1] | {"share": "nan"}]}, "arms.1.share"),
        ({"id": "a:b"}, "must be at most 64 letters, digits and . _ -"),
        ({"id": ""}, "must be at most 64 letters"),
        ({"coverage": 1.1}, "coverage: Input should be less than or equal to 1"),
        ({"unit": "page"}, "unit: Input should be 'user' or 'request'"),
        ({"start": "2026-01-01T00:00:00"}, "start: Input should have timezone info"),
        ({"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}, "start must be before end"),
        ({"arms": [ARMS[0] | {"explore": {}}, ARMS[1]]}, "must hold a temperature or an epsilon"),
        ({"arms": [ARMS[0] | {"explore": {"epsilon": 0.1}}, ARMS[1]]}, "epsilon and last belong together"),
        ({"arms": [ARMS[0] | {"explore": {"temperature": 0}}, ARMS[1]]}, "greater than 0"),
        (
            {"interleave": 0.1, "arms": [ARMS[0], ARMS[1] | {"share": 0.3}, {"name": "third", "share": 0.2}]},
            "interleave takes two arms, found 3",
        ),
        ({"covrage": 1}, "did you mean 'coverage'?"),
        ({"namespace": {"id": "lists", "range": [0.5, 0.5]}}, "namespace.range: must rise, found [0.5, 0.5]"),
        (
            {"namespace": {"id": "lists", "range": [0, 1.5]}},
            "namespace.range.1: Input should be less than or",
        ),
        ({"namespace": {"range": [0, 1]}}, "namespace.id is needed and missing"),
    ],
)
def test_a_rule_that_is_broken_is_named(changed: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        experiment(**changed)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ({"id": "one", "arm": ARMS}, "unknown key 'arm'; did you mean 'arms'? (and 1 more)"),
        (
            {"id": "one", "arms": [{"nme": "a", "share": 0.5}, ARMS[1]]},
            "unknown key 'arms.0.nme'; did you mean",
        ),
        (
            {"id": "one", "arms": ARMS, "compare": 2, "stopp": 1},
            "unknown key 'stopp'; did you mean 'stop'? (and",
        ),
    ],
)
def test_a_misspelled_key_is_named_before_what_it_leaves_missing(
    raw: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=f"^e.yaml: {re.escape(sentence)}"):
        check_settings(ExperimentSettings, raw, "e.yaml")


def test_only_changed_arms_and_shares_are_another_phase() -> None:
    one = experiment()
    same = experiment(coverage=0.1, stop=True, end="2030-01-01T00:00:00Z", compare=0.2)
    assert one.phase == same.phase == "1b943963"
    assert one.seed == f"one:{one.phase}"
    other = experiment(arms=[ARMS[0] | {"share": 0.4}, ARMS[1] | {"share": 0.6}])
    assert len({one.phase, other.phase, experiment(id="two").phase, experiment(arms=ARMS[::-1]).phase}) == 4


@given(st.lists(st.integers(1, 100), min_size=2, max_size=8), st.floats(0, 1))
def test_ranges_begin_where_coverage_does_not_move_them(parts: list[int], coverage: float) -> None:
    arms = [{"name": f"a{n}", "share": part / sum(parts)} for n, part in enumerate(parts)]
    some, full = experiment(arms=arms, coverage=coverage), experiment(arms=arms)
    assert [start for start, _ in some.ranges] == [start for start, _ in full.ranges]
    assert full.ranges[-1][1] == pytest.approx(1)
    assert [end for _, end in full.ranges[:-1]] == [start for start, _ in full.ranges[1:]]
    for (start, end), (_, most), arm in zip(some.ranges, full.ranges, some.arms, strict=True):
        assert end - start == pytest.approx(arm.share * coverage)
        assert end <= most


def in_lists(low: float, high: float) -> dict[str, object]:
    return {"namespace": {"id": "lists", "range": [low, high]}}


@pytest.mark.parametrize(
    ("one", "other", "rule"),
    [
        ({}, {}, "overlaps"),
        ({}, in_lists(0, 0.5), "overlaps"),
        (in_lists(0, 0.5), in_lists(0.499, 1), "overlaps"),
        (in_lists(0, 1), in_lists(0.2, 0.3), "overlaps"),
        (in_lists(0, 0.5), {"namespace": {"id": "mails", "range": [0.5, 1]}}, "overlaps"),
        (in_lists(0, 0.5), in_lists(0.5, 1) | {"unit": "request"}, "overlaps"),
        (in_lists(0, 0.5), in_lists(0.5, 1) | {"id": "one"}, "overlaps"),
        (
            in_lists(0, 0.5),
            in_lists(0.5, 1) | {"shadow": {"bundle": "b"}},
            "shadow: must be in the first file",
        ),
        (in_lists(0, 0.5), in_lists(0.5, 1), None),
        (in_lists(0.2, 0.4) | {"shadow": {"bundle": "b"}}, in_lists(0, 0.1), None),
    ],
)
def test_experiments_of_a_service_share_no_unit(
    tmp_path: Path, one: dict[str, object], other: dict[str, object], rule: str | None
) -> None:
    files = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    for file, changed in zip(files, (one, other), strict=True):
        file.write_text(json.dumps({"id": file.stem, "arms": ARMS} | changed))
    if rule is None:
        assert [found.id for found in load_experiments(files)] == ["one", "two"]
        return
    with pytest.raises(ConfigError, match=f"^{re.escape(str(files[1]))}: {rule}") as caught:
        load_experiments(files)
    assert rule != "overlaps" or f"overlaps {files[0]} on one unit" in str(caught.value)
