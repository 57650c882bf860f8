"""A trap in a log gets one true sentence in the configuration that is guessed, and clean logs get none."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mgoe.data import guess
from mgoe.simulation import WorldSettings, simulate
from tests.data.layouts import funnel, of, times, visits
from tests.effort import SOAK

VISITS, STEP = funnel(visits(3, sessions=250), [0.5, 0.5])
EVENTS = pd.DataFrame(
    {
        "user_id": VISITS.user + 100,
        "item_id": VISITS.item,
        "time": times(VISITS.seconds),
        "event": np.array(["view", "cart", "buy"])[STEP],
    }
)
SHOWN = pd.DataFrame({"clicked": (np.arange(len(EVENTS)) % 9 == 0).astype(int)})
BARE, COUNT = EVENTS.drop(columns="event"), np.arange(len(EVENTS))


def with_few(log: pd.DataFrame, day: str, rows: int) -> pd.DataFrame:
    """Return a log of which the first or the last rows are of another day."""
    log = log.copy()
    log.loc[log.index[:rows], "time"] = pd.to_datetime(day)
    return log


def without_users(log: pd.DataFrame) -> pd.DataFrame:
    return log.assign(user_id=log["user_id"].where(COUNT % 9 > 0).astype("Int64"))


def sessions_of(log: pd.DataFrame) -> pd.DataFrame:
    return log.drop(columns="user_id").assign(session_id=VISITS.session)[STEP == 0]


def orders_of(log: pd.DataFrame) -> pd.DataFrame:
    at_once = visits(1, sessions=250, same_time=True)
    columns = {"invoice": at_once.session + 5000, "user_id": at_once.user, "item_id": at_once.item}
    return pd.DataFrame(columns | {"time": times(at_once.seconds)})


Dirty = Callable[[pd.DataFrame], pd.DataFrame]
TRAPS: dict[str, tuple[pd.DataFrame, Dirty, str]] = {
    "rows without a user": (
        EVENTS,
        without_users,
        r"  missing_ids: drop +# [\d,]+ rows without a user or an item ",
    ),
    "an invoice": (
        BARE,
        orders_of,
        "# `invoice` is an order or a session, of one user at one time, and not read",
    ),
    "a price": (
        EVENTS,
        lambda log: log.assign(price=of(VISITS.item, 90) / 4 + 1),
        "# Of a row, and no tasks unless you ask: `price`",
    ),
    "cancellations": (
        EVENTS,
        lambda log: log.assign(quantity=np.where(COUNT % 12, 1, -1) * (1 + COUNT % 3)),
        r"# [\d,]+ rows have a negative `quantity`: cancellations or returns",
    ),
    "behaviours taken back": (
        EVENTS,
        lambda log: log.assign(event=log["event"].where(COUNT % 15 > 0, "cancel")),
        r"# Left out, because it takes back what was done: cancel \([\d,]+ rows\)",
    ),
    "a property of the click": (
        BARE,
        lambda log: log.assign(os=of(VISITS.session, 4)),
        "# No behaviours but properties, of users, items, clicks or times: `os`",
    ),
    "codes": (
        EVENTS,
        lambda log: log.assign(event=np.array([4, 1, 3])[STEP]),
        r"behaviors: \['1'\]\} +# [\d,]+ rows, after 4 on [\d,]+ pairs of user and item, before it on 0",
    ),
    "sessions": (BARE, sessions_of, "# Shape of the log: sessions, whose users do not return"),
    "a user of few values": (
        BARE.join(SHOWN),
        lambda log: log.drop(columns="user_id").assign(user_group=of(VISITS.user, 5)),
        "  user: null +# no column tells users apart",
    ),
    "an index": (EVENTS, lambda log: log.assign(__index_level_0__=COUNT), ""),
    "weeks": (
        BARE,
        lambda log: log.assign(week=VISITS.seconds // 604_800),
        "# No behaviours but properties, of users, items, clicks or times: `week`",
    ),
    "rows of 1980": (
        EVENTS,
        lambda log: with_few(log, "1980-01-01", 3),
        r"  start: .+ # 3 of [\d,]+ rows are of 1980-01-01, before almost all others",
    ),
    "a tail almost empty": (
        EVENTS,
        lambda log: with_few(log, "2025-06-01", 1),
        r"  end: .+ # 1 of [\d,]+ rows are of 2025-06-01, after almost all others",
    ),
}


def notes_of(log: pd.DataFrame, folder: Path) -> tuple[str, list[str]]:
    """Return a guess, and what it says besides the two lines on how to go on and the shape."""
    log.to_parquet(folder / "log.parquet")
    text = guess(folder / "log.parquet")
    return text, said_in(text)


def said_in(text: str) -> list[str]:
    head = text[: text.index("\ndata:")].splitlines()[3:]
    return head + [line for line in text.splitlines() if " as well" in line]


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_gets_one_true_sentence(trap: str, tmp_path: Path):
    clean, dirty, sentence = TRAPS[trap]
    before, said = notes_of(clean, tmp_path)
    assert said == []
    after, said = notes_of(dirty(clean), tmp_path)
    assert len(re.findall(sentence, after)) == 1 if sentence else before == after
    assert not sentence or not re.search(sentence, before)
    assert [line for line in said if not re.match(sentence, line)] == []


def test_clean_logs_get_next_to_no_sentences(tmp_path: Path):
    """At most two in thirty logs; the short form draws six."""
    said = []
    for seed in range(15 if SOAK else 3):
        size = {"users": 50 + 20 * (seed % 4), "items": 30 + 10 * (seed % 3), "days": 8 + 12 * (seed % 5)}
        how = {"repeats": 0.2 * (seed % 2), "sessions": 0.2 * (seed % 3), "growth": 1.0 + seed % 4}
        world = WorldSettings(**size, **how, exposures=1000 + 300 * (seed % 5), seed=seed)
        simulate(world, tmp_path / str(seed))
        for form in ("events", "exposures"):
            said += said_in(guess(tmp_path / str(seed) / form))
    assert len(said) <= 2, said
