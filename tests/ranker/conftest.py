"""Frames of the simulated log, and rankers fitted to them as the runs of the other tests."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

import mgoe
from mgoe.config import RunSettings
from tests.sharing import Shared


def frame_of(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(file) for file in sorted(folder.glob("*.parquet"))], ignore_index=True)


def like(settings: RunSettings) -> dict:
    """What a ranker is given to train with the settings of a run."""
    sections = settings.model_dump(mode="json", include={"split", "graph", "training", "evaluation"})
    return sections | {"data.bucket": settings.data.bucket, "data.history": settings.data.history}


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


def fitted(new: mgoe.Ranker, rows: pd.DataFrame, shared: Shared, own: Path) -> mgoe.Ranker:
    """Fit a ranker in a folder of this process, from what the first process to ask has trained."""
    name = f"ranker-{own.name}"
    shutil.copytree(shared(name, lambda path: new.fit(rows, workdir=path)), own)
    return new.fit(rows, workdir=own)


@pytest.fixture(scope="session")
def ranker(
    events: pd.DataFrame, small: RunSettings, shared: Shared, tmp_path_factory: pytest.TempPathFactory
) -> mgoe.Ranker:
    """Fitted to the event log with the settings of the run `finished`. Read it only."""
    new = mgoe.Ranker(tasks=["click", "buy"], settings=like(small))
    return fitted(new, events, shared, tmp_path_factory.mktemp("ranker") / "events")


@pytest.fixture(scope="session")
def shown_ranker(
    impressions: pd.DataFrame,
    exposures: RunSettings,
    world: Path,
    shared: Shared,
    tmp_path_factory: pytest.TempPathFactory,
) -> mgoe.Ranker:
    """Fitted to the exposure log with the settings of the run `shown`. Read it only."""
    users = pd.read_parquet(world / "truth" / "users.parquet")
    tasks = ["click", {"name": "buy", "given": "click"}, {"name": "stay", "kind": "regression"}]
    sides = {"users": users[["user_id", "community"]], "items": pd.read_parquet(world / "items.parquet")}
    new = mgoe.Ranker(tasks, context=["device"], **sides, settings=like(exposures))
    return fitted(new, impressions, shared, tmp_path_factory.mktemp("ranker") / "exposures")
