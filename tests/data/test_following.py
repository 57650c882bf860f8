"""Negatives at the moment: what they are drawn from, and that no input of an item alone tells them apart."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mgoe.config import NegativeSettings
from mgoe.data.events import uniforms
from mgoe.data.following import ALIKE, NEXT, sample_at_moments
from tests.data import logs
from tests.effort import SOAK, up_to

DAY = 86_400
TOLERANCE = 0.003


def sampled(rows: Any, how: NegativeSettings) -> tuple[Any, np.ndarray, Any]:
    """Return positives (bucket, user, item, moment, known), which are kept, and their draws (row, item).

    Args:
        rows: Events: bucket, user, item, time.
        how: Ratio and seed.
    """
    first = rows.groupby("item")["time"].min()
    pairs = rows.groupby(["bucket", "user", "item"], as_index=False)["time"].min()
    pairs = pairs.rename(columns={"time": "moment"}).assign(known=first[pairs["item"]].to_numpy())
    columns = (pairs[name].to_numpy(np.int64) for name in ("user", "item", "bucket", "moment", "known"))
    done, source, drawn = sample_at_moments(*columns, settings=how, uniforms=uniforms)
    return pairs, done, pd.DataFrame({"row": source, "item": drawn})


events = st.lists(
    st.tuples(st.integers(-2, 2), st.integers(0, 9), st.integers(0, 5), st.integers(0, 6)),
    unique=True,
    min_size=40,
    max_size=90,
)
samplers = st.builds(NegativeSettings, ratio=st.integers(1, 5), seed=st.integers(0, 5))


def frame(rows: list[tuple[int, int, int, int]]) -> Any:
    """Return events of (bucket, time within it, user, item); the times of buckets do not overlap."""
    found = pd.DataFrame(rows, columns=["bucket", "time", "user", "item"])
    return found.assign(time=found["time"] + 10 * found["bucket"])


def allowed(pairs: Any, row: int) -> set[int]:
    """Return the items that may be drawn for a positive, by the rule."""
    one = pairs.loc[row]
    if one["known"] >= one["moment"]:
        return set()
    bucket = pairs[pairs["bucket"] == one["bucket"]]
    did = set(zip(bucket["user"], bucket["item"], strict=True))
    later = bucket[(bucket["moment"] >= one["moment"]) & (bucket["user"] != one["user"])]
    later = later.sort_values(["moment", "user", "item"])
    ties = int((later["moment"] == one["moment"]).sum())
    return {
        other["item"]
        for _, other in later.head(max(NEXT, ties)).iterrows()
        if other["known"] < one["moment"]
        and (one["user"], other["item"]) not in did
        and (other["user"], one["item"]) not in did
    }


@given(rows=events, how=samplers)
def test_draws_are_what_others_did_next_if_both_could_have_done_the_other_way_round(rows, how):
    pairs, done, draws = sampled(frame(rows), how)
    for row, items in draws.groupby("row")["item"]:
        assert len(items) <= how.ratio
        assert set(items) <= allowed(pairs, row)
    assert (np.diff(done) > 0).all()
    assert (pairs.loc[done, "known"] < pairs.loc[done, "moment"]).all()
    assert set(done) <= set(draws["row"])  # kept by chance alone where some draws are kept
    everything = draws["row"].value_counts()
    assert set(everything[everything == how.ratio].index) <= set(done)


@given(rows=events)
def test_whatever_may_be_drawn_is_drawn_by_some_seed(rows):
    pairs = sampled(frame(rows), NegativeSettings())[0]
    many = [sampled(frame(rows), NegativeSettings(ratio=100, seed=seed))[2] for seed in range(4)]
    drawn = pd.concat(many).groupby("row")["item"].agg(set)
    assert all(drawn.get(row, set()) == allowed(pairs, row) for row in pairs.index)


@given(rows=events, more=events, how=samplers)
def test_other_buckets_change_no_draw_but_of_items_that_they_make_known(rows, more, how):
    """Later ones make none known before."""
    pairs, done, draws = sampled(frame(rows), how)
    later = [(bucket + 10, *rest) for bucket, *rest in more]
    wide, wide_done, wide_draws = sampled(frame(rows + later), how)
    n = len(pairs)
    pd.testing.assert_frame_equal(wide[:n], pairs)
    assert wide_done[wide_done < n].tolist() == done.tolist()
    pd.testing.assert_frame_equal(wide_draws[wide_draws["row"] < n].reset_index(drop=True), draws)


def test_of_many_events_at_one_moment_any_is_drawn():
    n = 3 * ALIKE + 10  # five of each item
    rows = pd.DataFrame({"bucket": 1, "time": 7, "user": np.arange(n), "item": np.arange(n) % 50})
    before = rows.assign(bucket=0, time=0, user=n)
    draws = sampled(pd.concat([before, rows]), NegativeSettings(ratio=50))[2]
    of_each = len(draws) / 50
    assert draws["item"].value_counts().between(0.8 * of_each, 1.2 * of_each).all()
    assert draws.groupby("item")["row"].nunique().min() > 0.5 * n


def world(kind: str, rows: int, seed: int, items: int = 1500, days: int = 40) -> Any:
    """Return events of users who choose alike, from items whose attraction changes.

    Args:
        kind: What there is of `births` of items that age, `bursts`, `trends`; `repeats`: half of the users do
            it again later in the day.
        rows: Events.
        seed: Of the world.
        items, days: Size.
    """
    rng = np.random.default_rng(seed)
    hour = np.arange(24 * days)[:, None] / 24
    weight = np.tile(rng.pareto(1.2, items) + 0.1, (len(hour), 1))
    if "births" in kind:
        birth, scale = rng.uniform(-days / 2, days, items), rng.uniform(0.3, 3, items)
        age = np.maximum(hour - birth, 0)
        weight *= np.where(hour < birth, 0, 0.2 + 5 * np.exp(-age / scale))
    if "trends" in kind:
        weight *= np.exp(np.sin(hour / 3 + np.arange(items)))
    if "bursts" in kind:
        burst = np.where(rng.random(weight.shape) < 0.002, 30.0, 0.0)
        for late in range(1, len(hour)):
            burst[late] += 0.7 * burst[late - 1]
        weight *= 1 + burst
    time = np.sort(rng.integers(0, days * DAY, rows))
    chosen = weight.cumsum(axis=1)
    chosen /= chosen[:, -1:]
    at = time // 3600
    item = np.concatenate(
        [
            np.searchsorted(chosen[one], rng.random(n))
            for one, n in enumerate(np.bincount(at, minlength=len(hour)))
        ]
    )
    found = pd.DataFrame(
        {"bucket": time // DAY, "time": time, "user": rng.integers(0, 800, rows), "item": item}
    )
    if "repeats" not in kind:
        return found
    again = found[rng.random(rows) < 0.5]
    later = again["time"] + (rng.random(len(again)) ** 2 * (DAY - again["time"] % DAY)).astype(int)
    return pd.concat([found, again.assign(time=later)])


def of_items(rows: Any, item: np.ndarray, moment: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the events strictly before a moment tell of an item alone. Shape (N,) each."""
    span = int(rows["time"].max()) + 2
    code = np.sort(rows["item"].to_numpy(np.int64) * span + rows["time"].to_numpy())
    start, end = np.searchsorted(code, item * span), np.searchsorted(code, item * span + moment)
    recent = np.searchsorted(code, item * span + np.maximum(moment - DAY, 0))
    return {
        "count": end - start,
        "recency": code[end - 1] - item * span - moment,
        "age": moment - (code[start] - item * span),
        "day": end - recent,
    }


KINDS = ["", "births", "bursts", "trends", "repeats", "births bursts trends repeats"]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_an_item_alone_tells_draws_from_positives_where_users_are_alike(kind):
    found = {name: [] for name in ("count", "recency", "age", "day")}
    for seed in range(4 if SOAK else 1):
        rows = world(kind, 240_000, seed)
        pairs, done, draws = sampled(rows, NegativeSettings(ratio=3, seed=seed))
        row = np.r_[done, draws["row"]]
        item = np.r_[pairs["item"].to_numpy()[done], draws["item"]]
        label = np.arange(len(row)) < len(done)
        for name, values in of_items(rows, item, pairs["moment"].to_numpy()[row]).items():
            found[name].append(roc_auc_score(label, values))
    assert {name: np.mean(auc) for name, auc in found.items() if abs(np.mean(auc) - 0.5) > TOLERANCE} == {}


@up_to(2)
@given(rows=logs.event_rows())
def test_what_is_left_out_of_a_prepared_log_is_counted(rows):
    log = pd.concat([logs.quiet_events(), logs.events(rows)])
    with TemporaryDirectory() as folder:
        settings = logs.event_settings(data={"history": "moment", "lag": "2h"})
        found = logs.prepared(log, settings, Path(folder) / "out")
        kept = sum(split["positives"] for split in found.summary["splits"].values())
        left_out, first = found.summary["left_out"], int(found.cuts[0])
    log = log[log["behavior"].isin(["click", "buy"])]
    pairs = log.assign(
        day=log["timestamp"] // DAY, known=log.groupby("item_id")["timestamp"].transform("min")
    )
    pairs = pairs[pairs["day"] > first].groupby(["day", "user_id", "item_id"])[["timestamp", "known"]].min()
    unknown = int((pairs["known"] >= pairs["timestamp"] - 7200).sum())
    assert left_out["unknown"] == pytest.approx(unknown / len(pairs))
    assert left_out["thinned"] == pytest.approx((len(pairs) - unknown - kept) / len(pairs))
