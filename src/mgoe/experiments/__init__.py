"""The whole line, callable: `mgoe.run(settings, out)`; and in parts, each of which leaves a folder that `run` goes on with.

A module is imported when a name of it is first asked for: the macro graph is built without torch.
"""

# ruff: noqa: F401 - what is imported for types is what is exported
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mgoe.experiments.bundle_refresh import refresh
    from mgoe.experiments.cell import Cell, Inputs, run_cell
    from mgoe.experiments.comparisons import ComparisonResult, compare
    from mgoe.experiments.folder import claim, mark
    from mgoe.experiments.graphs import forget, macro_graph, open_graph, update, write_graph_page
    from mgoe.experiments.results import leads, measured
    from mgoe.experiments.runs import RunResult, run, train_cells
    from mgoe.experiments.score import measure_pairs, score_pairs, write_scores
    from mgoe.experiments.stages import build, prepare_data
    from mgoe.experiments.summary import estimates
    from mgoe.experiments.train_one import train

_MODULES = {
    "bundle_refresh": ("refresh",),
    "cell": ("Cell", "Inputs", "run_cell"),
    "comparisons": ("ComparisonResult", "compare"),
    "folder": ("claim", "mark"),
    "graphs": ("forget", "macro_graph", "open_graph", "update", "write_graph_page"),
    "results": ("leads", "measured"),
    "runs": ("RunResult", "run", "train_cells"),
    "score": ("measure_pairs", "score_pairs", "write_scores"),
    "stages": ("build", "prepare_data"),
    "summary": ("estimates",),
    "train_one": ("train",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_MODULE_OF)
