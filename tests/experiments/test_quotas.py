"""Quotas of a run's candidates, chosen on validation."""

from mgoe.config import RetrievalSettings, RunSettings
from mgoe.data import Prepared
from mgoe.experiments.quotas import with_quotas
from mgoe.graph import MacroGraph


def test_quotas_are_chosen_once_and_given_ones_stay(finished, small: RunSettings):
    prepared, graph = Prepared.open(finished / "data"), MacroGraph.open(finished / "graph")
    chosen = with_quotas(RetrievalSettings(candidates=50), small, prepared, graph)
    assert chosen.quotas is not None
    assert sum(chosen.quotas.values()) == 50
    assert chosen.quotas["recent"] >= 2
    assert chosen.quotas["popular"] >= 1
    assert with_quotas(RetrievalSettings(candidates=50), small, prepared, graph) == chosen
    assert with_quotas(chosen, small, prepared, graph) is chosen
