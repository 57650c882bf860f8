"""What is described as a whole: a graph, a bundle, a log."""

from typing import Any, Literal

from pydantic import BaseModel

from mgoe.bundle.calibration import Calibration
from mgoe.bundle.lineage import Trained
from mgoe.graph.build.workplace import Spent


class Answer(
    BaseModel,
    extra="forbid",
    use_attribute_docstrings=True,
    json_schema_serialization_defaults_required=True,
):
    """An object, with all of these keys and no other."""


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


class Change(Answer, json_schema_serialization_defaults_required=False):
    """An update, or users that were removed."""

    what: Literal["update", "forget"]
    events: int | None = None
    late_pairs: int | None = None
    """Pairs with events from before the latest window."""
    recluster: bool | None = None
    users: int | None = None
    """Users that were removed."""


class Graph(Answer, json_schema_serialization_defaults_required=False):
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
    stages: dict[str, Spent]


class Task(Answer):
    """A task of a bundle."""

    name: str
    kind: Literal["binary", "regression"]


class Lineage(Answer):
    """Where a bundle comes from."""

    parent: str | None
    """Name of the bundle that it was made from; null after a full training."""
    trained: Trained
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


class Counts(Answer):
    """How often a behaviour occurs."""

    rows: int
    users: int
    items: int


class Activity(Answer):
    """Rows per user, or per item."""

    mean: float
    median: float
    p90: float
    max: int


class Busiest(Answer):
    """The time bucket with most rows."""

    bucket: str
    share: float
    """Share of all rows."""


class Span(Answer):
    """The time that a log covers."""

    first: str
    """First time bucket."""
    last: str
    bucket: str
    """Length of a bucket."""
    buckets: int
    """Buckets with rows."""
    empty_buckets: int
    busiest: Busiest


class Done(Answer):
    """How often a task is done."""

    done: int
    """Rows on which it is done."""
    pairs: int
    """Pairs of a user and an item with it."""
    rate: float
    """Share of the rows that have its label."""


class Step(Answer):
    """A task and the next stronger one."""

    task: str
    next: str
    share: float
    """Share of the pairs with `task` that has `next`."""


class FirstEnd(Answer):
    """The first tenth of the rows."""

    upto: str
    rates: dict[str, float]
    """Share of these rows that do each task."""


class LastEnd(Answer):
    """The last tenth of the rows."""

    since: str
    rates: dict[str, float]


class Drift(Answer):
    """The first tenth of the rows compared with the last."""

    first: FirstEnd
    last: LastEnd
    popularity_shift: float
    """Total variation between the shares of the items."""
    new_users: float
    """Share of the last rows whose user no earlier row has."""
    new_items: float
    new_pairs: float


class Log(Answer):
    """`mgoe describe LOG`, `mgoe describe CONFIG`."""

    form: Literal["events", "exposures"]
    rows: int
    outside_time: int
    """Rows before `data.start` or after `data.end`, which are left out."""
    duplicates: int
    nulls: dict[str, int]
    """Missing values by column."""
    users: int
    items: int
    pairs: int
    """Distinct pairs of a user and an item."""
    density: float
    """Pairs over users times items."""
    span: Span
    activity: dict[Literal["user", "item"], Activity]
    behaviors: dict[str, Counts]
    """Empty for an exposure log."""
    tasks: dict[str, Done]
    funnel: list[Step]
    drift: Drift | None
    """Null if the log is too short to have two ends."""
    rules: dict[str, str]
    """By setting, what [rules](method.md#settings-of-a-first-run) choose, why, and what the configuration
    has."""
