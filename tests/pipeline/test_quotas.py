"""Quotas of a run's candidates, chosen on validation."""

from mgoe.config import RetrievalSettings, RunSettings
from mgoe.pipeline.inputs import Inputs


def test_quotas_are_chosen_on_validation_and_given_ones_stay(finished, small: RunSettings):
    def quotas(how: RetrievalSettings) -> dict | None:
        found = Inputs.open(finished, small.model_copy(update={"retrieval": how})).retrieval
        return None if found is None else found.quotas

    chosen = quotas(RetrievalSettings(candidates=50))
    assert chosen is not None
    assert sum(chosen.values()) == 50
    assert chosen["recent"] >= 2
    assert chosen["popular"] >= 1
    assert quotas(RetrievalSettings(candidates=50)) == chosen
    assert quotas(RetrievalSettings(candidates=50, quotas={"own": 1, "swing": 4})) == {"own": 10, "swing": 40}


def test_nothing_is_chosen_where_all_items_are_ranked(finished, small: RunSettings):
    assert Inputs.open(finished, small.model_copy(update={"retrieval": "exact"})).retrieval is None
