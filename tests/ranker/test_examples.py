"""The examples of the docstrings print what they say, and the code of the page runs, on a small log."""

import doctest
import re
from pathlib import Path

import pandas as pd
import pytest

import mgoe
from mgoe.ranker import graph, recommender
from mgoe.ranker import ranker as ranker_module
from mgoe.serving.http import supervisor
from tests.effort import SOAK
from tests.ranker.conftest import after

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
FEW = 'settings={"training.epochs": 1, "split.cuts": [0.4, 0.6, 0.8]}'
SHORTER = {
    'tasks=["click", "buy"])': f'tasks=["click", "buy"], {FEW})',
    'settings={"training.epochs": 2}': FEW,
    "[0.002, 0.005]": "[0.005]",
    "ranker.serve(port=0)": 'ranker.serve(port=0, runtime={"engine": "torch"})',
}
"""What the short form writes in place of what the page says. The engine `torch` has nothing to export."""
EXAMPLES = [
    example
    for module in (ranker_module, recommender, graph, supervisor)
    for example in doctest.DocTestFinder(exclude_empty=True).find(module)
    if example.examples
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_prints_what_it_says(
    example: doctest.DocTest,
    ranker: mgoe.Ranker,
    events: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    few = events[events["behavior"].isin(["click", "buy"])].reset_index(drop=True)
    own = mgoe.Ranker.load(ranker.bundle_.path)  # an update leaves the fitted one as it is
    own._home = ranker._home  # with its run
    example.globs.update({"events": few, "later": after(few), "ranker": own})
    assert doctest.DocTestRunner().run(example, clear_globs=False).failed == 0


def test_every_public_method_has_an_example():
    shown = {example.name.rpartition(".")[2] for example in EXAMPLES}
    kinds = mgoe.Ranker, recommender.Recommender, graph.RankerGraph
    own = {name for kind in kinds for name in vars(kind)}
    assert shown >= {name for name in own if not name.startswith("_")}


def test_public_names_are_visible_and_documented():
    assert dir(mgoe) == sorted(mgoe.__all__)
    assert all(getattr(mgoe, name).__doc__ for name in mgoe.__all__)


def test_the_code_of_the_page_runs(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "log").symlink_to(world)
    monkeypatch.chdir(tmp_path)
    text, names = PAGE.read_text(encoding="utf-8"), dict[str, object]()
    for said, shorter in SHORTER.items():
        assert said in text
        text = text if SOAK else text.replace(said, shorter)
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(block, names)
    assert names.keys() >= {"ranker", "by_label"}
