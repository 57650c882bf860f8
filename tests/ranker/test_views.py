"""Plots are Axes of the numbers that the run wrote, and every object shows its facts as text and as HTML."""

import importlib
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

import mgoe
from mgoe._util.files import read_json
from mgoe._util.notebook import Shown
from mgoe.errors import MissingExtra
from mgoe.ranker.plots import RankerPlots

mpl.use("Agg")


@pytest.fixture
def plots(ranker: mgoe.Ranker) -> RankerPlots:
    return ranker.plot


def test_curves_are_those_of_the_run(ranker: mgoe.Ranker, plots: RankerPlots):
    loss, validation = plots.curves()
    [epoch] = read_json(ranker.bundle_.path.parent / "cells" / "mgoe" / "0" / "curves.json")["epochs"]
    own = ranker.evaluate().query("split == 'valid' and slice == 'all' and metric == 'ranking'")
    assert loss.lines[0].get_ydata() == pytest.approx([sum(epoch["losses"].values())])
    assert validation.lines[0].get_ydata() == pytest.approx(own["value"].to_numpy())
    assert validation.get_legend_handles_labels()[1][0] == "mgoe"


def test_reliability_has_a_line_per_task_within_the_axes(plots: RankerPlots):
    ax = plots.reliability()
    assert ax.get_legend_handles_labels()[1] == ["click", "buy"]
    points = np.concatenate([line.get_xydata() for line in ax.lines])
    low, high = ax.get_xlim()
    assert ((low <= points) & (points <= high)).all()
    assert plots.reliability(ax) is ax


def test_the_macro_graph_is_drawn_with_every_macro_node(ranker: mgoe.Ranker):
    ax = mgoe.Ranker.load(ranker.bundle_.path).graph.plot()
    [part] = [ranker.bundle_.graph.latest.resolutions[ranker.bundle_.graph.latest.dense]]
    assert ax.images[0].get_array().shape == part.macro_edges.shape
    assert sorted(int(label.get_text()) for label in ax.get_xticklabels()) == list(
        range(part.macro_edges.shape[1])
    )


def test_a_missing_extra_is_named(plots: RankerPlots, monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtra, match=r"pip install 'mgoe\[plot\]'"):
        plots.curves()


def test_facts_are_the_same_as_text_and_as_html(ranker: mgoe.Ranker):
    for shown in (ranker, ranker.graph, ranker.bundle_, mgoe.Ranker(["click", "buy"])):
        text, page = repr(shown), shown._repr_html_()
        for fact in text.partition("(")[2].removesuffix(")").split("; "):
            assert fact.split()[-1] in page
    assert "users 192" in repr(ranker)
    assert "fitted no" in repr(mgoe.Ranker())
    assert ranker._repr_mimebundle_() == {"text/plain": repr(ranker), "text/html": ranker._repr_html_()}


@pytest.mark.parametrize("parameters", [{"tasks": 7}, {"tasks": "click"}, {"tasks": [1]}, {"model": 7}])
def test_wrong_parameters_are_shown_too(parameters: dict[str, Any]):
    assert str(next(iter(parameters.values()))).strip("[]") in repr(mgoe.Ranker(**parameters))


def test_facts_are_escaped():
    class Odd(Shown):
        def _facts(self) -> dict[str, object]:
            return {"name": "<script>", "sizes": [1, 2], "rows": 12_345}

    assert repr(Odd()) == "Odd(name <script>; sizes 1, 2; rows 12,345)"
    assert "&lt;script&gt;" in Odd()._repr_html_()
    assert "<script>" not in Odd()._repr_html_()
