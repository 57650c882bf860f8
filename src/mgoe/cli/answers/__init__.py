"""What each command prints with --json: `mgoe schema COMMAND` shows it, `docs/cli.md` lists it.

A class is here if no class of the library says what is printed.
"""

from dataclasses import dataclass
from typing import Any, Literal

from mgoe.bundle.calibration import Calibration
from mgoe.bundle.lineage import Trained as HowTrained
from mgoe.cli.answers.described import Answer, Bundle, Graph, Lineage, Log
from mgoe.datasets import Fetched, PreparedLog
from mgoe.datasets.dataset import DataSetFacts, DataSetRow
from mgoe.evaluation import Estimate
from mgoe.lifecycle import Release, ShadowReport
from mgoe.lifecycle.version import Change
from mgoe.simulation import SimulationSummary

__all__ = ["ANSWERS"]

Id = int | str
"""As in the log."""


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
    """A measured number: a `Row`, whose class pydantic cannot read before Python 3.12."""

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


@dataclass(frozen=True, kw_only=True)
class LeadOfTable(Estimate):
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
    leads: list[Estimate]
    """Leads of a run on all of test."""


class WrittenFile(Answer):
    """A file of rows that was written."""

    path: str
    rows: int


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


class Updated(Answer):
    """`mgoe update`."""

    path: str
    lineage: Lineage
    due: list[str]
    """Why a full training is due; empty if it is not."""
    calibration: Calibration
    graph: Graph


class Version(Answer):
    """An entry of `mgoe registry list`."""

    version: str
    """As its service answers with."""
    aliases: list[str]
    added: str
    model: str
    parent: str | None
    """What it was made from; null after a full training."""
    trained: HowTrained
    log: list[str] | None
    """First and last time of the log that it learned from; null if unknown."""
    mgoe: str


class ShownVersion(Version):
    """`mgoe registry show`."""

    path: str
    lineage: list[str]
    """From the version back to a full training."""
    release: dict[str, Any] | None
    """Its `release.json`; null if it was not tested."""
    changes: list[Change]


class Aliases(Answer):
    """`mgoe registry add`, `promote` and `rollback`."""

    version: str
    aliases: dict[str, str]
    """Version by alias."""


class Pruned(Answer):
    """`mgoe registry prune`."""

    removed: list[str]
    served: list[str]
    """Old versions that stay because a service has them open."""


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


ANSWERS: dict[str, Any] = {
    "demo": Demo,
    "models list": Models,
    "describe": Log | Bundle,
    "simulate": SimulationSummary,
    "data list": list[DataSetRow],
    "data describe": DataSetFacts,
    "data fetch": Fetched,
    "data prepare": PreparedLog,
    "graph build": Graph,
    "graph describe": Graph,
    "graph update": Graph,
    "graph forget": Graph,
    "train": Trained,
    "run": Run,
    "rows": WrittenRows,
    "compare": Comparison,
    "evaluate": Evaluation,
    "predict": list[Pair] | Scores,
    "recommend": list[Recommendation] | Scores,
    "export": Exported,
    "update": Updated,
    "exposures": WrittenFile,
    "registry list": list[Version],
    "registry show": ShownVersion,
    "registry add": Aliases,
    "registry test": Release,
    "registry compare": ShadowReport,
    "registry promote": Aliases,
    "registry rollback": Aliases,
    "registry prune": Pruned,
    "doctor": Doctor,
}
"""What `mgoe COMMAND --json` prints. `init` prints a configuration, `schema` a JSON Schema."""
