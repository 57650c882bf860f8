"""Runs and comparisons: check, run, report; and the graph, rows and forecasts by themselves.

runs            mgoe run, mgoe train, mgoe compare: a plan, made by the stages of `mgoe.pipeline`
checks          all that can be refused before any work
served          of which model the bundle of a run is
report          tables, leads and HTML pages: `topn_report`, `pages`, and `notices`, what is odd
results         what runs and comparisons return
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
        "pages": ("duration", "write_graph_page"),
        "report": ("leads", "measured", "plain_leads"),
        "results": ("ComparisonResult", "RunResult"),
        "incumbent": ("INCUMBENT", "rows"),
        "rolling": ("Ageing", "measure_ageing"),
        "runs": ("compare", "run", "train"),
    },
)
