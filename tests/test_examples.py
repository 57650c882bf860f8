"""The examples in the docstrings of public names print what they say, on one small log.

Those of `mgoe.Ranker` are in tests/ranker.
"""

import doctest
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mgoe
from mgoe.serving.scoring.runtime import Runtime
from tests.effort import SOAK
from tests.experiments.tiny import here_or_failed

PACKAGES = (
    "",
    "config",
    "metrics",
    "data",
    "graph",
    "features",
    "retrieval",
    "models",
    "training",
    "evaluation",
    "bundle",
    "serving",
    "datasets",
    "simulation",
    "lifecycle",
)

WITHOUT = {
    "bundle.seal",
    "bundle.write_bundle",
    "data.open_on_spark",
    "datasets.fetch",
    "datasets.prepare",
    "graph.Exposures",
    "lifecycle.compare_shadow",
    "lifecycle.run_cycle",
    "retrieval.Asked",
    "retrieval.Former",
    "retrieval.LatestPairs",
    "retrieval.Rows",
    "retrieval.Stored",
    "retrieval.computed",
    "retrieval.swing_rows",
}
"""They need a cluster, the network, what only a run has at hand, or are in the examples of others."""


def public() -> dict[str, Any]:
    """Every public class and function by package and name, each once."""
    found = {
        f"{package}.{name}".strip("."): getattr(module, name)
        for package in PACKAGES
        for module in [importlib.import_module(f"mgoe.{package}".strip("."))]
        for name in module.__all__
    }
    ours = {
        name: one
        for name, one in found.items()
        if (inspect.isclass(one) or inspect.isfunction(inspect.unwrap(one)))
        and f"{one.__module__}.".startswith("mgoe.")
        and one is not mgoe.Ranker
    }
    return {name: ours[name] for name in {id(one): name for name, one in reversed(ours.items())}.values()}


PUBLIC = public()
EXAMPLES = [
    example
    for name, one in PUBLIC.items()
    for example in doctest.DocTestFinder(exclude_empty=True).find(one, name, module=inspect.getmodule(one))
    if example.examples
]


def given(name: str, use: Callable[[str], Any]) -> Any:
    """What an example may use without making it."""
    from mgoe.bundle import Bundle
    from mgoe.data import Prepared
    from mgoe.evaluation import read_rows
    from mgoe.graph import MacroGraph
    from mgoe.training import make_spec

    run: Path = use("finished")
    made: dict[str, Callable[[], Any]] = {
        "log": lambda: use("world") / "events",
        "settings": lambda: use("small"),
        "folder": lambda: run,
        "bundle": lambda: Bundle.open(run / "bundle"),
        "prepared": lambda: Prepared.open(run / "data"),
        "graph": lambda: MacroGraph.open(run / "graph"),
        "spec": lambda: make_spec(given("prepared", use), given("graph", use)),
        "rows": lambda: read_rows(run / "metrics.json"),
    }
    return made[name]()


NAMES = ("log", "settings", "folder", "bundle", "prepared", "graph", "spec", "rows")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_prints_what_it_says(
    example: doctest.DocTest,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    if not SOAK:  # neither an export nor processes
        monkeypatch.setattr("mgoe.pipeline.serving_time.Runtime", partial(Runtime, engine="torch"))
        monkeypatch.setattr("mgoe._util.processes.run_jobs", here_or_failed)
    example.globs.update(dict(names_of(example, request.getfixturevalue)))
    assert doctest.DocTestRunner().run(example, clear_globs=False).failed == 0


def names_of(example: doctest.DocTest, use: Callable[[str], Any]) -> Iterator[tuple[str, Any]]:
    source = "".join(one.source for one in example.examples)
    for name in NAMES:
        if re.search(rf"(?<![\w.\"']){name}\b(?!\s*[=(])", source):
            yield name, given(name, use)


def test_every_public_name_has_an_example():
    shown = {example.name for example in EXAMPLES}
    without = {name for name in PUBLIC if not any(f"{one}.".startswith(f"{name}.") for one in shown)}
    assert without == WITHOUT


def test_every_public_name_is_documented():
    assert [name for name, one in PUBLIC.items() if not one.__doc__] == []
