"""Graphs, and the bundles that hold one."""

from typing import Any, Literal

from mgoe.bundle.calibration import Calibration
from mgoe.cli.answers.base import Answer


class Resolution(Answer):
    """One size of macro nodes."""

    macro_users: int
    macro_items: int
    largest_user_share: float
    """Share of the users in the largest macro node."""
    largest_item_share: float
    edges_per_user: float
    edges_per_item: float
    drift: float
    """Share of all score of users that another macro node ties better than their own."""


class Change(Answer):
    """An update, or users that were removed."""

    what: Literal["update", "forget"]
    events: int | None = None
    late_pairs: int | None = None
    """Pairs with events from before the latest window."""
    recluster: bool | None = None
    users: int | None = None
    """Users that were removed."""


class Stage(Answer):
    """A stage of the build."""

    seconds: float
    peak_gib: float
    """Most memory so far."""


class Graph(Answer):
    """`mgoe graph build`, `describe`, `update` and `forget`."""

    format: int
    engine: str
    snapshots: int
    events: int
    first: str
    """Time of the first event."""
    last: str
    users: int
    items: int
    pairs: int
    bytes: int
    """On disk."""
    resolutions: list[Resolution]
    """Coarse to fine."""
    exposure_records: int | None = None
    """Exposure logs: records that rates are counted from."""
    cells: dict[str, int] | None = None
    """Exposure logs: counted cells by group."""
    changes: list[Change]
    """Since it was built."""
    seconds: float
    """Time of the build."""
    stages: dict[str, Stage]


class Task(Answer):
    """A task of a bundle."""

    name: str
    kind: Literal["binary", "regression"]


class Lineage(Answer):
    """Where a bundle comes from."""

    parent: str | None
    """Name of the bundle that it was made from; null after a full training."""
    trained: Literal["full", "retrained", "refreshed"]
    """`refreshed` has the weights of its parent."""
    log: list[str]
    """Times of the first and the last event that its graph holds."""
    version: str
    """Version of mgoe."""


class Bundle(Answer):
    """`mgoe describe BUNDLE`."""

    format: int
    versions: dict[str, str]
    """Versions of mgoe, Python and libraries when it was written."""
    tasks: list[Task]
    """Weakest to strongest."""
    model: dict[str, Any]
    """Settings of the model, with its defaults."""
    lineage: Lineage | None
    """Null in a bundle of an earlier version."""
    calibration: Calibration
    graph: Graph


class Refreshed(Answer):
    """`mgoe refresh`."""

    path: str
    calibration: Calibration
    graph: Graph


class Retrained(Refreshed):
    """`mgoe retrain`."""

    lineage: Lineage
    due: list[str]
    """Why a full training is due; empty if it is not."""
