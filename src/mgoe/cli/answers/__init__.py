"""What each command prints with --json: `mgoe schema COMMAND` shows it, `docs/cli.md` lists it."""

from typing import Any

from mgoe.cli.answers.base import WrittenFile
from mgoe.cli.answers.graphs import Bundle, Graph, Refreshed, Retrained
from mgoe.cli.answers.logs import DataSet, DataSetFacts, Log
from mgoe.cli.answers.releases import Aliases, Pruned, ShownVersion, Version
from mgoe.cli.answers.results import (
    Comparison,
    Demo,
    Doctor,
    Evaluation,
    Exported,
    Models,
    Pair,
    Recommendation,
    Run,
    Scores,
    Trained,
    WrittenRows,
)
from mgoe.datasets import Fetched, PreparedLog
from mgoe.release import Release, ShadowReport
from mgoe.simulation import SimulationSummary

__all__ = ["ANSWERS"]

ANSWERS: dict[str, Any] = {
    "demo": Demo,
    "models list": Models,
    "describe": Log | Bundle,
    "simulate": SimulationSummary,
    "data list": list[DataSet],
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
    "refresh": Refreshed,
    "retrain": Retrained,
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
