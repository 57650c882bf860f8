"""Logs: what one holds, what was drawn, fetched or parsed."""

from typing import Literal

from mgoe.cli.answers.base import Answer


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


class DataSet(Answer):
    """An entry of `mgoe data list`."""

    name: str
    form: Literal["events", "exposures"]
    tasks: list[str]
    size: str
    """Size of the download, for people."""
    license: str
    real: bool
    """Whether `mgoe data prepare` was run on the real files."""


class Download(Answer):
    """A file at a public address."""

    address: str
    bytes: int | None
    md5: str | None


class DataSetFacts(DataSet):
    """`mgoe data describe`."""

    title: str
    home: str
    access: str
    """How to get the files."""
    downloads: list[Download]
    files: list[str]
    """Files that are needed."""
    instead: list[str] | None
    """Other files that will do."""
    time: str | None
    """Protocol of `time.yaml`; null without times."""
    published: str
    """Protocol of `published.yaml`."""
    layout: str
    """Where the layout of the files is documented."""
    notes: str | None
