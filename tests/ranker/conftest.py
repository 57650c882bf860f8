"""Frames of the simulated log, and rankers fitted to them as the runs of the other tests."""

from pathlib import Path

import pandas as pd
import pytest

import mgoe
from mgoe.config import RunSettings


def frame_of(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(file) for file in sorted(folder.glob("*.parquet"))], ignore_index=True)


def like(settings: RunSettings) -> dict:
    """What a ranker is given to train with the settings of a run."""
    sections = settings.model_dump(mode="json", include={"split", "graph", "training", "evaluation"})
    return sections | {"data.bucket": settings.data.bucket}


def after(rows: pd.DataFrame) -> pd.DataFrame:
    """The last third of a log as if it had happened right after it."""
    start, end = rows["timestamp"].min().floor("D"), rows["timestamp"].max().ceil("D")
    last = rows[rows["timestamp"] > start + (end - start) * 2 / 3]
    return last.assign(timestamp=last["timestamp"] + (end - start)).reset_index(drop=True)


@pytest.fixture(scope="session")
def events(world: Path) -> pd.DataFrame:
    return frame_of(world / "events")


@pytest.fixture(scope="session")
def impressions(world: Path) -> pd.DataFrame:
    return frame_of(world / "exposures")


@pytest.fixture(scope="session")
def ranker(events: pd.DataFrame, small: RunSettings) -> mgoe.Ranker:
    """Fitted to the event log with the settings of the run `finished`. Read it only."""
    return mgoe.Ranker(tasks=["click", "buy"], settings=like(small)).fit(events)


@pytest.fixture(scope="session")
def shown_ranker(impressions: pd.DataFrame, exposures: RunSettings, world: Path) -> mgoe.Ranker:
    """Fitted to the exposure log with the settings of the run `shown`. Read it only."""
    users = pd.read_parquet(world / "truth" / "users.parquet")
    tasks = ["click", {"name": "buy", "given": "click"}, {"name": "stay", "kind": "regression"}]
    sides = {"users": users[["user_id", "community"]], "items": pd.read_parquet(world / "items.parquet")}
    return mgoe.Ranker(tasks, context=["device"], **sides, settings=like(exposures)).fit(impressions)
