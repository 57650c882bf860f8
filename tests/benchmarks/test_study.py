"""The study of the graph's settings runs on small worlds, and its figures mean what they say."""

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.world import agreement

from benchmarks import study
from mgoe.data import Vocabulary
from mgoe.graph import MacroGraph
from mgoe.simulation import Truth
from tests.effort import slow

EVENTS = 20_000


def figures(capsys: pytest.CaptureFixture[str]) -> dict[str, dict]:
    found = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    return {figure["name"]: figure for figure in found}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "COMMUNITIES", 10)
    monkeypatch.setattr(study, "DEFAULT", {"resolutions": [[10, 10]], "dense": 0})
    monkeypatch.setattr(study, "WORLDS", {"plain": {}, "skewed and heavy": study.WORLDS["skewed and heavy"]})
    monkeypatch.setattr(study, "USER_EVENTS", (20, 40))
    monkeypatch.setattr(study, "VARIED", {"rank": (4,), "resolutions": ([[5, 5]],)})
    monkeypatch.setattr(study, "SHARES", (0.5,))


@slow
def test_every_study_prints_its_figures(capsys: pytest.CaptureFixture[str]):
    study.main(["worlds", "settings", "drift", "--events", str(EVENTS), "--seeds", "1"])
    found = figures(capsys)
    worlds = {
        f"study.nmi.{side}.{name}.{n}"
        for side in study.SIDES
        for name in ("plain", "skewed_and_heavy")
        for n in (20, 40)
    }
    settings = {
        f"study.nmi.{side}.{name}" for side in study.SIDES for name in ("rank=4", "resolutions=[[5, 5]]")
    }
    drift = {"study.drift.0.5", "study.nmi.user.kept.0.5", "study.nmi.item.kept.0.5"}
    assert set(found) == worlds | settings | drift
    assert all(0 < figure["value"] < 1 for figure in found.values())
    for name in worlds:  # nobody does better than who knows the other side, but by chance
        assert found[name]["value"] < found[name]["against"] + 0.1
    assert found["study.nmi.item.plain.40"]["value"] > found["study.nmi.item.plain.20"]["value"]


def test_agreement_is_whole_where_macro_nodes_are_the_communities():
    with study.world(EVENTS, 100, seed=0) as folder:
        graph = study.build(folder, folder / "log" / "events")
        assert agreement(folder / "log", graph)["user"] < 0.99
        truth = study_truth(folder / "log", graph)
        for side, communities in truth.items():
            np.save(graph.folder(-1) / f"r0.{side}_macro.npy", communities)
        assert agreement(folder / "log", MacroGraph.open(graph.path)) == pytest.approx(
            {"user": 1.0, "item": 1.0}
        )


def study_truth(log: Path, graph: MacroGraph) -> dict[str, np.ndarray]:
    """Communities by code, where a node has edges."""
    truth, latest = Truth.open(log), graph.latest.resolutions[-1]
    found = {}
    for side, nodes, ids, macro in (
        ("user", truth.users, truth.user_ids, latest.user_macro),
        ("item", truth.items, truth.item_ids, latest.item_macro),
    ):
        vocabulary = Vocabulary.load(graph.path / f"{side}s.parquet")
        community = nodes.community[ids.index(vocabulary.ids(np.arange(vocabulary.size)))]
        found[side] = np.where(np.asarray(macro) < 10, community, 10).astype(np.int32)
    return found
