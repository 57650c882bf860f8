"""Models, what was measured of them, and what they score."""

from typing import Any, Literal

from mgoe.cli.answers.base import Answer, Id, WrittenFile


class Model(Answer):
    """A model that can be trained."""

    name: str
    inputs: list[str]
    """Input groups."""
    ids: Literal["auto", "on", "off"]
    about: str


class Models(Answer):
    """`mgoe models list`."""

    models: list[Model]
    suffixes: dict[str, list[str]]
    """Input groups by suffix, such as `mgoe` in `mmoe+mgoe`."""


class Metric(Answer):
    """A measured number."""

    model: str
    seed: int
    split: str
    """`valid`, `test`, or `new` for labelled pairs."""
    slice: str
    task: str
    """`all` is the mean over tasks."""
    metric: str
    value: float | None
    """Null where it does not exist."""


class Lead(Answer):
    """How far a model is ahead of another one."""

    model: str
    baseline: str
    task: str
    metric: str
    value: float | None
    """Mean difference over seeds."""
    low: float | None
    """95 % interval."""
    high: float | None
    by_seed: list[float | None]
    users: int
    """Test users that contribute."""
    p: float | None
    adjusted: float | None
    """p after Holm's correction."""


class LeadOfTable(Lead):
    """A lead, and the table that it belongs to."""

    question: str
    """Title of the table."""
    log: str


class Trained(Answer):
    """`mgoe train`."""

    path: str
    bundle: str
    metrics: list[Metric]


class Run(Trained):
    """`mgoe run`."""

    report: str


class Demo(Run):
    """`mgoe demo`."""

    reachable: dict[str, float]
    """By model, the share of the reachable gain over chance."""


class Comparison(Answer):
    """`mgoe compare`."""

    path: str
    leads: list[LeadOfTable]
    failed: dict[str, str]
    """Reason by cell."""
    waiting: int
    """Cells that are not run yet."""


class Evaluation(Answer):
    """`mgoe evaluate`."""

    metrics: list[Metric]
    leads: list[Lead]
    """Leads of a run on all of test."""


class Scores(WrittenFile):
    """`mgoe predict --out FILE` and `mgoe recommend --users FILE --out FILE`."""

    tasks: list[str]


class WrittenRows(WrittenFile):
    """`mgoe rows`."""

    columns: list[str]
    """Row, user, item, time, window, labels by task, and predictions by `MODEL.TASK`."""


class Pair(Answer):
    """An entry of `mgoe predict`."""

    user: Id
    item: Id
    tasks: dict[str, float]
    """Probability (or value) of each task."""


class Recommendation(Answer):
    """An entry of `mgoe recommend`."""

    user: Id
    """As typed, or as in the file."""
    rank: int
    """From 1."""
    item: Id
    score: float
    """What orders the list."""
    tasks: dict[str, float]
    """Probability (or value) of each task."""


class Compared(Answer):
    """A metric of the bundle and of the exported model."""

    task: str
    metric: str
    bundle: float | None
    exported: float | None


class Exported(Answer):
    """`mgoe export`."""

    path: str
    precision: Literal["float32", "int8"]
    compared: list[Compared]
    """Empty without `--on`."""


class Memory(Answer):
    """Memory of the machine."""

    total_gib: float
    free_gib: float


class Disk(Answer):
    """Disk of the working folder."""

    folder: str
    free_gib: float


class Doctor(Answer):
    """`mgoe doctor`."""

    python: str
    platform: str
    versions: dict[str, str | None]
    """Versions of required libraries; null if one is missing."""
    extras: dict[str, str]
    """`installed`, or what is missing."""
    threads: dict[str, int | str]
    """Cores, and environment variables that limit threads."""
    memory: Memory
    gpu: dict[str, Any]
    sharded_tables: dict[str, str | None]
    disk: Disk
    problems: list[str]
    """One sentence per thing to fix; none if all is well."""
