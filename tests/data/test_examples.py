import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import TaskSettings, make_settings
from mgoe.data import SPLITS, events, prepare
from mgoe.data.examples import mask_given
from tests.data import logs

REAL = Path(os.environ.get("MGOE_TEST_DATA", "no folder"))
DAY0 = logs.START // logs.DAY


def real(name: str) -> str:
    if not (REAL / name).is_file():
        pytest.skip(f"needs {name} in the folder that MGOE_TEST_DATA names")
    return str(REAL / name)


def test_events_of_a_bucket_become_one_example(tmp_path):
    extra = [(0, 1, 5, "click"), (0, 1, 5, "buy"), (0, 1, 7, "click"), (1, 0, 11, "cart")]
    data = logs.prepared(
        pd.concat([logs.quiet_events(), logs.events(extra)]), logs.event_settings(), tmp_path / "out"
    )
    assert data.tasks == ("click", "buy")
    assert data.summary["ignored_behaviors"] == {"cart": 1}
    assert data.summary["events"] == {"click": 14, "buy": 13}
    train = data.examples("train")
    pair = train.take(
        (train.user == data.users.indices([0])[0])
        & (train.item == data.items.indices([1])[0])
        & (train.labels > 0).any(axis=1)
    )
    assert pair.bucket.tolist() == [DAY0 + 5, DAY0 + 7]
    assert pair.labels.tolist() == [[1, 1], [1, 0]]
    assert pair.snapshot.tolist() == [0, 1]
    assert (train.weight == 1).all()
    kinds = [
        column.dtype
        for column in (train.user, train.item, train.bucket, train.snapshot, train.labels, train.weight)
    ]
    assert kinds == ["int64", "int64", "int32", "int16", "float32", "float32"]
    assert train.position is None
    assert [set(data.examples(split).snapshot.tolist()) for split in SPLITS] == [{0, 1}, {2}, {3}]


def test_examples_are_in_order_positives_first(tmp_path):
    rows = [
        (u, i, d, "click") for u in range(4) for i in range(4) for d in range(logs.DAYS) if (u + i + d) % 3
    ]
    data = logs.prepared(
        pd.concat([logs.quiet_events(), logs.events(rows)]),
        logs.event_settings(negatives={"ratio": 2}),
        tmp_path / "out",
    )
    for split in SPLITS:
        examples = data.examples(split)
        negative = ~(examples.labels > 0).any(axis=1)
        assert (
            np.lexsort((negative, examples.item, examples.user, examples.bucket)) == np.arange(len(examples))
        ).all()
        assert 0 < negative.sum() <= 2 * (~negative).sum()
        assert data.summary["splits"][split]["negatives"] == negative.sum()
        positives = pd.DataFrame({"user": examples.user, "bucket": examples.bucket})[~negative]
        assert data.summary["splits"][split]["user_buckets"] == len(positives.drop_duplicates())
        age = examples.bucket - data.cuts[examples.snapshot]
        assert data.summary["splits"][split]["history_age"] == pytest.approx(age.mean())
    train = data.summary["splits"]["train"]
    assert data.summary["negatives_per_positive"] == pytest.approx(train["negatives"] / train["positives"])
    assert data.summary["positives_per_user_bucket"] == pytest.approx(
        train["positives"] / train["user_buckets"]
    )


@pytest.mark.parametrize("ratio", [3, 5])
def test_negatives_do_not_depend_on_the_block_size(ratio, tmp_path, monkeypatch):
    run = logs.event_settings(negatives={"ratio": ratio})
    one = logs.contents(logs.prepared(logs.quiet_events(), run, tmp_path / "one"))
    drawn, sample = [], events.sample_negatives
    monkeypatch.setattr(
        events, "sample_negatives", lambda user, *rest: drawn.append(len(user)) or sample(user, *rest)
    )
    for positives, most in ((2, 2), (1, 1)):  # a day's, and some users of a day
        monkeypatch.setattr(events, "BLOCK", positives * (1 + ratio))
        other = logs.contents(logs.prepared(logs.quiet_events(), run, tmp_path / f"{positives}"))
        pd.testing.assert_frame_equal(other["examples"], one["examples"])
        assert max(drawn) == most
        drawn.clear()


def test_a_behaviour_may_do_several_tasks_and_a_task_have_several_behaviours(tmp_path):
    tasks = [
        {"name": "touch", "behaviors": ["click", "cart"]},
        {"name": "want", "behaviors": ["cart", "buy"]},
    ]
    log = pd.concat([logs.quiet_events(), logs.events([(0, 1, 6, "cart")])])
    data = logs.prepared(log, logs.event_settings(tasks=tasks), tmp_path / "out")
    history = data.history.to_pandas()
    assert sorted(history[(history.bucket == DAY0 + 6) & (history.item == 1) & (history.user == 0)].task) == [
        0,
        1,
    ]
    assert data.summary["events"] == {"touch": 13, "want": 13}


def test_exposures_are_used_as_they_are(tmp_path):
    log = logs.quiet_exposures()
    log["weight"], log["place"] = np.arange(36) / 10, np.where(np.arange(36) % 5, np.arange(36) % 4, np.nan)
    log["random"] = pd.array([1, 0, None] * 12, "Int8")
    tasks = [{"name": "click", "label": "clicked"}, {"name": "buy", "label": "bought", "given": "click"}]
    run = logs.exposure_settings(
        tasks=tasks,
        data={
            "weight": "weight",
            "position": "place",
            "uniform": "random",
            "context": [{"name": "hour"}],
        },
    )
    log.loc[log.index % 3 == 2, "bought"] = np.where(log.index[log.index % 3 == 2] % 2, 0.0, np.nan)
    data = logs.prepared(log, run, tmp_path / "out")
    kept = log[log.timestamp >= logs.START + 3 * logs.DAY].sort_values(["timestamp"])
    examples = [data.examples(split) for split in SPLITS]
    together = pd.DataFrame(
        {
            "bucket": np.concatenate([e.bucket for e in examples]),
            "user": np.concatenate([data.users.ids(e.user).to_numpy() for e in examples]),
            "item": np.concatenate([data.items.ids(e.item).to_numpy() for e in examples]),
            "clicked": np.concatenate([e.labels[:, 0] for e in examples]),
            "bought": np.concatenate([e.labels[:, 1] for e in examples]),
            "weight": np.concatenate([e.weight for e in examples]),
            "place": np.concatenate([e.position for e in examples]),
            "random": np.concatenate([data.streamed(split).column("uniform") for split in SPLITS]),
        }
    )
    expected = kept.assign(bucket=kept.timestamp // logs.DAY, user=kept.user_id, item=kept.item_id)
    expected["bought"] = expected.bought.where(expected.clicked == 1)
    expected["random"], expected["place"] = expected.random.fillna(0), expected.place.fillna(-1)
    expected = expected.sort_values(["bucket", "user", "item"])[list(together)].reset_index(drop=True)
    pd.testing.assert_frame_equal(together, expected, check_dtype=False)
    assert (data.context_features.encode({"hour": [0]}, 1)["hour"] == examples[0].context["hour"][0]).all()
    assert (
        data.summary["splits"]["train"]["tasks"]["buy"]["labels"]
        == np.isfinite(examples[0].labels[:, 1]).sum()
    )


def test_a_regression_label_above_zero_is_history(tmp_path):
    log = logs.quiet_exposures().assign(spent=lambda d: d.clicked * 2.5)
    run = logs.exposure_settings(tasks=[{"name": "spend", "label": "spent", "kind": "regression"}])
    data = logs.prepared(log, run, tmp_path / "out")
    assert len(data.history.to_pandas()) == 24
    assert set(data.examples("test").labels.ravel().tolist()) == {0.0, 2.5}
    assert data.summary["warnings"] == []


def test_labels_known_after_the_end_are_not_history(tmp_path):
    tasks = [{"name": "click", "label": "clicked", "delay": "2d"}]
    run = logs.exposure_settings(tasks=tasks, data={"end": "2020-01-13"})
    data = logs.prepared(logs.quiet_exposures(), run, tmp_path / "out")
    assert data.history.to_pandas().bucket.max() == DAY0 + 11
    assert data.summary["splits"]["test"]["positives"] == 4


@given(labels=st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, np.nan])] * 3)))
def test_a_label_outside_its_sample_space_is_missing(labels):
    tasks = [
        TaskSettings(name="click"),
        TaskSettings(name="cart", given="click"),
        TaskSettings(name="buy", given="cart"),
    ]
    given_labels = np.array(labels, dtype=np.float32).reshape(-1, 3)
    masked = mask_given(given_labels, tasks)
    click, cart, buy = given_labels.T
    np.testing.assert_array_equal(masked[:, 0], click)
    np.testing.assert_array_equal(masked[:, 1], np.where(click == 1, cart, np.nan))
    np.testing.assert_array_equal(masked[:, 2], np.where((click == 1) & (cart == 1), buy, np.nan))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", "timestamp", "date", "text", "zoned"])
def test_a_moment_is_the_same_in_every_representation(unit, tmp_path):
    log = logs.quiet_events()
    seconds = log.timestamp // logs.DAY * logs.DAY
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    moments = pd.to_datetime(seconds, unit="s")
    other = {
        "timestamp": moments,
        "date": moments.dt.date,
        "text": moments.dt.strftime("%Y-%m-%dT%H:%M:%S"),
        "zoned": moments.dt.tz_localize("Asia/Tokyo"),
    }
    log["timestamp"] = seconds * scale[unit] if unit in scale else other[unit]
    shift = 9 * 3600 * (unit == "zoned")
    log.to_parquet(tmp_path / "log.parquet")
    data = prepare(logs.event_settings(data={"log": str(tmp_path / "log.parquet")}), tmp_path / "out")
    assert sorted(set(data.history.to_pandas().time // 1_000_000)) == sorted(set(seconds - shift))


def test_tmall_by_the_protocol(tmp_path):
    raw = {"data": {"log": real("tmall.parquet"), "end": "2014-11-10"}, "tasks": ["click", "fav", "buy"]}
    data = prepare(make_settings(raw), tmp_path / "out")
    assert data.summary["ignored_behaviors"] == {"cart": 477}
    assert data.summary["rows"] - data.summary["dropped_rows"]["outside_time"] == 636_316
    assert len(data.cuts) == 8
    held = {split: data.summary["splits"][split] for split in SPLITS}
    assert sum(part["examples"] for part in held.values()) == pytest.approx(1.76e6, rel=0.01)
    assert held["train"]["examples"] / held["test"]["examples"] == pytest.approx(6, rel=0.1)
    assert data.summary["negatives_per_positive"] == pytest.approx(3, abs=0.02)


def test_zozo_as_exposures(tmp_path):
    raw = {
        "data": {
            "log": real("zozo.parquet"),
            "bucket": "6h",
            "position": "position",
            "context": [{"name": "campaign"}],
        },
        "tasks": [{"name": "click", "label": "click"}],
    }
    data = prepare(make_settings(raw), tmp_path / "out")
    assert data.summary["events"] == {"click": 287}
    assert data.context_features.sizes == {"campaign": 4}
    assert data.users.type == "uint64"
    assert set(data.examples("test").position) == {1, 2, 3}
