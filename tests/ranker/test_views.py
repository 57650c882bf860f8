"""Plots are Axes of the numbers that the run wrote, and every object shows its facts as text and as HTML."""

import importlib
from typing import Any

import matplotlib as mpl
import pytest

import mgoe
from mgoe._util.notebook import Shown
from mgoe.errors import MissingExtra

mpl.use("Agg")


def test_the_macro_graph_is_drawn_with_every_macro_node(ranker: mgoe.Ranker):
    ax = mgoe.Ranker.load(ranker.bundle_.path).graph.plot()
    [part] = [ranker.bundle_.graph.latest.resolutions[ranker.bundle_.graph.latest.dense]]
    assert ax.images[0].get_array().shape == part.macro_edges.shape
    assert sorted(int(label.get_text()) for label in ax.get_xticklabels()) == list(
        range(part.macro_edges.shape[1])
    )


def test_a_missing_extra_is_named(ranker: mgoe.Ranker, monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtra, match=r"pip install 'mgoe\[plot\]'"):
        ranker.graph.plot()


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
