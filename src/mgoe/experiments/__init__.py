"""Runs and comparisons: plan, execute, resume, report; and the graph, scores and bundles by themselves.

plan            what there is to do, and where each result is stored
folder          the output folder
nodes           what a plan is made of; `values`, the settings that decide it
consistency     whether what is finished can be trusted
execute         the work of a plan: what is stale or damaged goes, what is left is made
prepare         its first steps; `stages`, the prepared log and the graph
cell            one model trained with one seed and measured
cell_bundle     its bundle; `served`, of which model that of a run is
serving_time    how long it takes to serve
topn            top-N lists of models; `references`, what they are compared with; `held_out`, the log
                without last items
tuning          search of settings on validation
records         results.jsonl
report          tables, leads and HTML pages
runs            mgoe run, mgoe train, mgoe compare
results         what they return; `plots`, their plots
graphs          mgoe graph build
incumbent       mgoe rows, and the scores of another ranker on the same rows
rolling         mgoe evaluate --rolling: what a day of age costs
forecast        mgoe plan; `costs`, what each unit of work takes

A module is imported when one of its names is first used, since the macro graph is built without torch.
"""

# ruff: noqa: F401 - what is imported for types is what is exported
from typing import TYPE_CHECKING

from mgoe._util.lazy import lazy

if TYPE_CHECKING:
    from mgoe.experiments.costs import slowness
    from mgoe.experiments.forecast import Forecast, foresee
    from mgoe.experiments.graphs import macro_graph, open_graph
    from mgoe.experiments.incumbent import INCUMBENT, rows
    from mgoe.experiments.inputs import Inputs
    from mgoe.experiments.pages import duration, write_graph_page
    from mgoe.experiments.report import leads, measured, plain_leads
    from mgoe.experiments.results import ComparisonResult, RunResult
    from mgoe.experiments.rolling import Ageing, measure_ageing
    from mgoe.experiments.runs import compare, run, train

__getattr__, __dir__ = lazy(
    __name__,
    {
        "costs": ("slowness",),
        "forecast": ("Forecast", "foresee"),
        "graphs": ("macro_graph", "open_graph"),
        "inputs": ("Inputs",),
        "pages": ("duration", "write_graph_page"),
        "report": ("leads", "measured", "plain_leads"),
        "results": ("ComparisonResult", "RunResult"),
        "incumbent": ("INCUMBENT", "rows"),
        "rolling": ("Ageing", "measure_ageing"),
        "runs": ("compare", "run", "train"),
    },
)
