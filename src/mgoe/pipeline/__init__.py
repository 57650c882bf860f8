"""The whole line, callable: `mgoe.run(settings, out)`; and in parts, each of which leaves a folder that `run` goes on with."""

from mgoe.pipeline.cells import Cell, Inputs, run_cell
from mgoe.pipeline.output import claim, mark
from mgoe.pipeline.parts import macro_graph, train
from mgoe.pipeline.run import RunResult, build, prepare_data, run, train_cells
from mgoe.pipeline.summary import estimates

__all__ = [
    "Cell",
    "Inputs",
    "RunResult",
    "build",
    "claim",
    "estimates",
    "macro_graph",
    "mark",
    "prepare_data",
    "run",
    "run_cell",
    "train",
    "train_cells",
]
