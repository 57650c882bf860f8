"""The log: columns, tasks, time split, negatives."""

import itertools
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, Self, cast
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from mgoe.config.base import Length, PositiveLength, Seed, Settings, Texts, did_you_mean, or_auto

CLOCK_SKEW = 5 * 60 * 1_000_000
"""Microseconds by which a moment that a client sends may be ahead of this machine's clock."""


def _written(value: object) -> object:
    if isinstance(value, int | float) or (
        isinstance(value, str) and value.strip().lstrip("+-").replace(".", "", 1).isdigit()
    ):
        raise ValueError(
            f"must be a date or a time, found the number {value}; write it as in 2017-11-25"
        )  # a number would count seconds
    return value


Moment = Annotated[datetime, BeforeValidator(_written)]


def _zone(name: str) -> str:
    # looks into many files; `localtime` is that of a machine
    valid = {name} if name == "UTC" else available_timezones() - {"localtime"}
    if name not in valid:
        raise ValueError(
            "must be the IANA name of a time zone, such as Asia/Shanghai, "
            f"found {name!r}{did_you_mean(name, sorted(valid))}"
        )
    return name


class FeatureSettings(Settings):
    """A column besides the ids, of a side table or of an exposure log.

    Example:
        >>> FeatureSettings(name="tags", kind="multi").separator
        '|'
    """

    name: str
    """Name of the column."""
    kind: Literal["categorical", "multi", "numeric", "vector"] = "categorical"
    """`multi` holds several categories: a list column, or a string split at `separator`. `vector` holds what
    an encoder made of a text or an image (side tables only)."""
    path: str | None = None
    """A `.npy` file of vectors beside the side table, in the order of its rows, in place of a column."""
    separator: str = Field(default="|", min_length=1)
    """Splits the strings of a `multi` feature."""
    min_count: int = Field(default=1, ge=1)
    """Categories seen less often share one index with unseen ones."""

    @model_validator(mode="after")
    def _a_file_holds_vectors(self) -> Self:
        if self.path is not None and self.kind != "vector":
            raise ValueError(f"`path` is for `kind: vector`, found {self.kind}; leave it out")
        return self


class SideTableSettings(Settings):
    """A table with one row per user (or item).

    Example:
        >>> table = SideTableSettings(path="items.parquet", id="item_id", features=[{"name": "tag"}])
        >>> table.features[0].kind
        'categorical'
    """

    path: str
    """A file, folder or glob."""
    id: str
    """Column with the id as in the log; no id twice."""
    name: str | None = None
    """Column with what people call them, such as a title: shown by the page and the report, read by no
    model."""
    features: list[FeatureSettings] = []
    """Features; may be empty if there is a `name`."""

    @model_validator(mode="after")
    def _not_idle(self) -> Self:
        if not self.features and self.name is None:
            raise ValueError(
                "must name a column to read, found only the id; give `features`, a `name` or both"
            )
        return self


class DataSettings(Settings):
    """The files of the log and the meaning of its columns.

    Example:
        >>> DataSettings(log="clicks.parquet", user="visitor").log
        ['clicks.parquet']
    """

    log: Texts = Field(min_length=1)
    """Parquet or CSV files, folders or globs."""
    engine: Literal["local", "spark"] = "local"
    """`local` prepares the log in this process, `spark` on `spark.master`."""
    form: Literal["auto", "events", "exposures"] = "auto"
    """`events`: only what happened, one behaviour per row. `exposures`: one row per item shown, one label
    column per task. `auto`: exposures if any task names a label column, otherwise events."""
    user: str | None = "user_id"
    """Column of users; null where an exposure log has none: no user is read then."""
    item: str = "item_id"
    """Column of items."""
    time: str = "timestamp"
    """Column of times."""
    behavior: str | None = "behavior"
    """Column of an event log that says what happened; null where every row does the one task."""
    time_unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"
    """Unit of numeric times; `auto` goes by their magnitude."""
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    """IANA name of the zone of times without one, in the log, in events of a service, and in `start`, `end`
    and `split.cuts`. Buckets are counted in UTC."""
    where: str | None = Field(default=None, min_length=1)
    """A condition on the columns of the log, such as `quantity > 0`; other rows are left out before they are
    checked."""
    start: Moment | None = None
    """First moment that is included."""
    end: Moment | None = Field(default=None, json_schema_extra=or_auto)
    """First moment that is no longer included."""
    bucket: PositiveLength = "1d"
    """Length of a time bucket. Windows end at bucket boundaries."""
    history: Literal["cut", "bucket", "moment"] = "cut"
    """What a row reads: `cut`, what had happened when its window began; `bucket`, all that happened before
    its bucket; `moment`, what a service would know, all that happened before the first event of its user and
    item in the bucket, or before an exposure's request."""
    lag: Length = "0s"
    """How long an event takes to reach your service: with `history: bucket` or `moment`, a row does not read
    what happened so shortly before."""
    request: str | None = None
    """Column with the id of the request that an item was shown for. Rows of one request, user and item are
    one exposure; rows of different requests are different ones (exposures only)."""
    weight: str | None = None
    """Column of sample weights (exposures only)."""
    context: list[FeatureSettings] = []
    """Columns of an exposure log that are known when the item is shown; also needed at prediction."""
    position: str | None = None
    """Column of the shown position: a bias in training, and part of what adjusted rates expect (exposures
    only)."""
    uniform: str | None = None
    """Column that is 1 where the item was shown uniformly at random, whatever the policy: on test such rows
    are measured on their own too (exposures only)."""
    users: SideTableSettings | None = None
    """Side table of users."""
    items: SideTableSettings | None = None
    """Side table of items."""
    truth: str | None = None
    """The `truth` folder of a simulated log: adds the rows `chance` and `best-reachable`."""
    erased: str | None = None
    """The list of erased users of a registry, `REGISTRY.erased.json`: rows of theirs from before are left
    out."""
    missing_ids: Literal["refuse", "drop"] = "refuse"
    """What to do with rows without a user or without an item."""
    duplicates: Literal["drop", "refuse"] = "drop"
    """What to do with rows that repeat every column of the schema."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The columns of ids that the log has."""
        return (self.item,) if self.user is None else (self.user, self.item)

    @property
    def user_column(self) -> str:
        """The column of users in what a service writes, which a log without users does not read."""
        return self.user or "user"

    @model_validator(mode="after")
    def _nobody_has_no_features(self) -> Self:
        named = [name for name in ("users", "truth", "erased") if getattr(self, name) is not None]
        if self.user is None and named:
            raise ValueError(
                f"`{named[0]}` is for a log with users, found it with `user: null`; leave one out"
            )
        return self

    @model_validator(mode="after")
    def _cuts_need_no_lag(self) -> Self:
        if self.history == "cut" and seconds(self.lag):
            raise ValueError(
                f"`lag` is for `history: bucket` or `moment`, found {self.lag} with `history: cut`; leave it "
                "out"
            )
        return self

    @field_validator("context")
    @classmethod
    def _no_vectors(cls, context: list[FeatureSettings]) -> list[FeatureSettings]:
        for feature in context:
            if feature.kind == "vector":
                raise ValueError(
                    f"vectors are features of users and items, found {feature.name!r}; name it in the "
                    "`features` of data.users or data.items"
                )
        return context


class TaskSettings(Settings):
    """A task: what a model predicts.

    Example:
        >>> TaskSettings(name="buy", behaviors=["buy", "repurchase"]).done_by
        ['buy', 'repurchase']
    """

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    """Name of the task: letters, digits and underscores."""
    behaviors: Texts = []
    """Event logs: the values of the behaviour column that do this task; the task's name by default."""
    label: str | None = None
    """Exposure logs: the label column. A null is a missing label."""
    kind: Literal["binary", "regression"] = "binary"
    """`binary` or `regression` (exposure logs)."""
    rank: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Strength in the merged graph; the position in the list, from 1, by default."""
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Weight of its loss."""
    given: str | None = None
    """Sample space: the label counts only where this (weaker, binary) task's label is 1."""
    known_at: str | None = None
    """Exposure logs: a column with the time at which the label became known."""
    delay: Length = "0s"
    """Exposure logs: how long after the exposure the label is known, if there is no such column."""

    @property
    def done_by(self) -> list[str]:
        """Values of the behaviour column that do the task."""
        return self.behaviors or [self.name]


Cut = Annotated[
    Annotated[date, Tag("date")] | Annotated[datetime, Tag("time")],
    Discriminator(
        lambda cut: "time" if isinstance(cut, datetime) or (isinstance(cut, str) and ":" in cut) else "date"
    ),
    BeforeValidator(_written, json_schema_input_type=date | datetime),
]
"""A string with a time is not a date, even at midnight, since it may have a zone."""

Cuts = Annotated[
    Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Tag("quantiles")]
    | Annotated[list[Cut], Tag("dates")],
    Discriminator(
        lambda cuts: (
            "dates"
            if isinstance(cuts, list) and any(isinstance(cut, str | date) for cut in cuts)
            else "quantiles"
        )
    ),
]


class SplitSettings(Settings):
    """The time split.

    `n` cuts make `n` windows, each with a snapshot of everything up to its cut. The last `test_windows` of
    them are test, the one before is valid, and the others are train.

    Example:
        >>> SplitSettings(cuts=[0.4, 0.6, 0.8]).valid_window
        1
    """

    cuts: Cuts = Field(default=[0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], json_schema_extra=or_auto)
    """Quantiles of the positive examples, or dates (the first day after the cut). The bucket of a cut is
    before it."""
    test_windows: int = Field(default=1, ge=1)
    """Windows that are test, the last ones. Each reads the snapshot before it, as a service does whose bundle
    is refreshed at every cut."""

    @property
    def valid_window(self) -> int:
        """Number of the window that is valid: those before it are train, those after it test."""
        return len(self.cuts) - 1 - self.test_windows

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        cuts = cast(list[Any], self.cuts)
        if self.valid_window < 1:
            tested = "test" if self.test_windows == 1 else f"{self.test_windows} test windows"
            raise ValueError(
                f"at least {self.test_windows + 2} cuts are needed (train, valid and {tested} each read the "
                f"snapshot before them), found {len(cuts)}"
                + ("" if self.test_windows == 1 else "; add cuts, or take fewer test_windows")
            )
        if any(a >= b for a, b in itertools.pairwise([_moment(cut) for cut in cuts])):
            raise ValueError(f"cuts must rise, found {cuts}")
        return self


def _moment(cut: Any) -> Any:
    """Return dates and times on one scale, whether or not they have a zone; numbers unchanged."""
    if not isinstance(cut, date):
        return cut
    moment = cut if isinstance(cut, datetime) else datetime(cut.year, cut.month, cut.day)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class NegativeSettings(Settings):
    """Sampled negatives of event logs; exposure logs contain negatives.

    Example:
        >>> NegativeSettings(ratio=1).distribution
        'popularity'
    """

    ratio: int = Field(default=3, ge=1)
    """Number drawn for each positive example."""
    distribution: Literal["popularity", "uniform"] = "popularity"
    """Items are drawn from the positives of the same bucket: as often as they occur there, or all equally
    often."""
    seed: Seed = 0
    """Seed of the negative sampling."""
    training_seed: Seed | None = None
    """Seed of the negatives of training examples, by default `seed`. Runs that differ only in it are
    evaluated on the same rows."""

    @property
    def of_training(self) -> Self:
        """The settings with the seed of training examples."""
        return self if self.training_seed is None else self.model_copy(update={"seed": self.training_seed})


def seconds(length: str) -> int:
    """Return the seconds of a length such as `6h` or `1d`.

    Example:
        >>> seconds("6h")
        21600
    """
    return int(length[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[length[-1]]
