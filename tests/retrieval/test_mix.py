import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mgoe.retrieval import best_quotas, mixed
from mgoe.retrieval.mix import apportioned

lists = st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 20), unique=True, max_size=12))
quotas = st.fixed_dictionaries(dict.fromkeys("abc", st.integers(0, 5)))


@given(lists=lists, quotas=quotas, n=st.integers(1, 30))
def test_the_mix_holds_distinct_items_of_lists_with_a_quota(lists, quotas, n):
    arrays = {name: np.array(items, np.int64) for name, items in lists.items()}
    items = mixed(arrays, quotas, n).tolist()
    there = {item for name, one in lists.items() if quotas[name] for item in one}
    assert len(items) == len({*items}) == min(n, len(there))
    assert {*items} <= there


@given(quotas=quotas)
def test_lists_that_do_not_overlap_give_their_quotas(quotas):
    lists = {name: 100 * k + np.arange(9) for k, name in enumerate("abc")}
    items = mixed(lists, quotas, sum(quotas.values()))
    for k, name in enumerate("abc"):
        assert ((items // 100) == k).sum() == quotas[name]


@given(weights=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any), n=st.integers(0, 50))
def test_parts_sum_to_the_whole(weights, n):
    parts = apportioned({str(k): weight for k, weight in enumerate(weights)}, n)
    assert sum(parts.values()) == n
    for weight, part in zip(weights, parts.values(), strict=True):
        assert abs(part - weight * n / sum(weights)) < 1


places = st.lists(st.integers(0, 30), min_size=4, max_size=4).map(np.array)


@given(a=places, b=places, weight=st.lists(st.floats(0.1, 1), min_size=4, max_size=4).map(np.array))
def test_chosen_quotas_find_most_up_to_what_the_greedy_rule_loses(a, b, weight):
    quotas = best_quotas({"a": a, "b": b}, weight, 20)

    def found(first: int, second: int) -> float:
        return weight[(a < first) | (b < second)].sum()

    assert sum(quotas.values()) == 20
    best = max(found(first, 20 - first) for first in range(21))
    assert found(*quotas.values()) >= (1 - 1 / np.e) / 2 * best  # what the rule guarantees
    assert found(*quotas.values()) >= max(found(20, 0), found(0, 20))


def test_a_list_that_finds_nothing_gets_no_quota():
    none = np.full(3, 99)
    assert best_quotas({"a": none, "b": np.array([0, 3, 9])}, np.ones(3), 10) == {"a": 0, "b": 10}
    assert best_quotas({"a": none, "b": none}, np.ones(3), 10) == {"a": 5, "b": 5}
