"""The whole line, callable: `mgoe.run(settings, out)`."""

from mgoe.pipeline.cells import Cell, Inputs, run_cell
from mgoe.pipeline.output import claim, mark
from mgoe.pipeline.run import RunResult, build, prepare_data, run, train_cells
from mgoe.pipeline.summary import estimates

__all__ = ["Cell", "Inputs", "RunResult", "build", "claim", "estimates", "mark", "prepare_data", "run", "run_cell", "train_cells"]
