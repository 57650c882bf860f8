"""What each command prints with --json: `mgoe schema COMMAND` shows it, `docs/cli.md` lists it."""

from typing import Any

from mgoe.cli.answers.base import Answer
from mgoe.cli.answers.graphs import Bundle, Graph, Refreshed, Retrained
from mgoe.cli.answers.logs import DataSet, DataSetFacts, Exposures, Fetched, Log, PreparedLog, Simulation
from mgoe.cli.answers.releases import Aliases, Pruned, ShownVersion, Tested, Version
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
)

__all__ = ["ANSWERS", "Answer"]

ANSWERS: dict[str, Any] = {
    "demo": Demo,
    "models list": Models,
    "describe": Log | Bundle,
    "simulate": Simulation,
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
    "compare": Comparison,
    "evaluate": Evaluation,
    "predict": list[Pair] | Scores,
    "recommend": list[Recommendation] | Scores,
    "export": Exported,
    "refresh": Refreshed,
    "retrain": Retrained,
    "exposures": Exposures,
    "registry list": list[Version],
    "registry show": ShownVersion,
    "registry add": Aliases,
    "registry test": Tested,
    "registry promote": Aliases,
    "registry rollback": Aliases,
    "registry prune": Pruned,
    "doctor": Doctor,
}
"""What `mgoe COMMAND --json` prints. `init` prints a configuration, `schema` a JSON Schema."""
