"""Every object shows its facts as text and as HTML."""

from typing import Any

import pytest

import mgoe
from mgoe._util.notebook import Shown


def test_facts_are_the_same_as_text_and_as_html(ranker: mgoe.Ranker):
    for shown in (ranker, ranker.graph, ranker.bundle_, mgoe.Ranker(["click", "buy"])):
        text, page = repr(shown), shown._repr_html_()
        for fact in text.partition("(")[2].removesuffix(")").split("; "):
            assert fact.split()[-1] in page
    assert "users 192" in repr(ranker)
    assert "fitted no" in repr(mgoe.Ranker())


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
