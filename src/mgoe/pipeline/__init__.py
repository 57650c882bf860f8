"""The whole line, callable: `mgoe.run(settings, out)`; and in parts, each of which leaves a folder that `run` goes on with."""

from mgoe.pipeline.cells import Cell, Inputs, run_cell
from mgoe.pipeline.graphs import forget, macro_graph, open_graph, update, write_graph_page
from mgoe.pipeline.output import claim, mark
from mgoe.pipeline.parts import train
from mgoe.pipeline.results import leads, measured
from mgoe.pipeline.run import RunResult, build, prepare_data, run, train_cells
from mgoe.pipeline.score import measure_pairs, score_pairs, write_scores
from mgoe.pipeline.summary import estimates

__all__ = [
    "Cell",
    "Inputs",
    "RunResult",
    "build",
    "claim",
    "estimates",
    "forget",
    "leads",
    "macro_graph",
    "mark",
    "measure_pairs",
    "measured",
    "open_graph",
    "prepare_data",
    "run",
    "run_cell",
    "score_pairs",
    "train",
    "train_cells",
    "update",
    "write_graph_page",
    "write_scores",
]
