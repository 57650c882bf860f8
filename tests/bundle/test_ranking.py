"""Ranking: what filters leave, what is retrieved, and what comes first."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

import mgoe
from mgoe.bundle import ranking
from mgoe.bundle.item_index import ItemIndex
from mgoe.bundle.objective import read_objective
from mgoe.bundle.request import RankingRequest
from mgoe.config import FeatureSettings
from mgoe.data import FeatureEncoders, SideFeatures, Vocabulary
from mgoe.errors import BundleError, MgoeError
from mgoe.features import View
from mgoe.retrieval import Blend, OwnItems, known_items
from tests.effort import up_to

COLORS = ("red", "green", "blue")
TAGS = ("new", "sale", "last")


class Half:
    """Retrieves the even items of the snapshot."""

    quotas: ClassVar = {"even": 30, "none": 10}
    blend = None

    def own_items(self, view: View, user: int) -> OwnItems:
        return OwnItems(known_items(view, user), *[np.empty(0, np.int64)] * 5)

    def candidates(
        self,
        view: View,
        user: int,
        n: int,
        without: Sequence[int] | np.ndarray = (),
        own: OwnItems | None = None,
    ) -> np.ndarray:
        return np.setdiff1d(np.arange(0, view.snapshot.n_items, 2), without)[:n]


@pytest.fixture(scope="module")
def colored(finished: Path) -> mgoe.Bundle:
    """A bundle of items with a color, up to two tags and a price; that of the last ten is unknown."""
    bundle, rng = mgoe.load(finished / "bundle"), np.random.default_rng(0)
    features = (
        FeatureSettings(name="color"),
        FeatureSettings(name="tags", kind="multi"),
        FeatureSettings(name="price", kind="numeric"),
    )
    encoders = FeatureEncoders(
        features,
        {"color": Vocabulary(pa.array(COLORS)), "tags": Vocabulary(pa.array(TAGS))},
        {"tags": 2},
        {"price": (1.0, 2.0)},
    )
    n = bundle.size("item") - 10
    side = {
        "color": rng.integers(0, 4, n),
        "tags": np.stack([rng.integers(-1, 4, n), rng.integers(-1, 4, n)], axis=1),
        "numeric": rng.normal(size=(n, 1)).astype(np.float32),
    }
    bundle.item_index = ItemIndex(SideFeatures(encoders, side), bundle.graph.latest.arrays["item_sum"])
    return bundle


def values_of(bundle: mgoe.Bundle, feature: str, item: int) -> set[str]:
    """The values of an item, read without the index."""
    (found,) = bundle.item_index.values(feature, bundle.indices("item", [item]))
    names = COLORS if feature == "color" else TAGS
    return {names[value - 1] for value in found.tolist() if value > 0}


conditions = st.fixed_dictionaries(
    {},
    optional={
        "color": st.lists(st.sampled_from([*COLORS, "pink"]), min_size=1, max_size=2),
        "tags": st.sampled_from([*TAGS, "no tag"]),
    },
)


@given(
    user=st.integers(-1, 150),
    where=conditions,
    max_per=st.dictionaries(st.sampled_from(["color", "tags"]), st.integers(1, 4)),
    known=st.booleans(),
    k=st.integers(1, 120),
    retrieves=st.booleans(),
)
def test_no_filter_is_broken_and_the_best_that_fit_come_first(
    colored: mgoe.Bundle, user: int, where: dict, max_per: dict, known: bool, k: int, retrieves: bool
):
    colored.retrieval = Half() if retrieves else None
    id = colored.ids("user", np.array([user]))[0] if user >= 0 else "nobody"
    how = {"objective": "click", "exclude_known": known, "where": where, "exclude": [3, "none"]}
    found = colored.recommend(id, k, max_per=max_per, **how)["item"].tolist()
    assert len(found) == len(set(found)) <= k
    history = colored.ids("item", colored.graph.latest.known_items(user).astype(np.int64)) if known else []
    assert not {*history, 3} & {*found}
    for feature, wanted in where.items():
        assert all({wanted} & values_of(colored, feature, item) if isinstance(wanted, str)
                   else {*wanted} & values_of(colored, feature, item) for item in found)  # fmt: skip
    every = colored.recommend(id, 1000, **how, exact=not retrieves)["item"].tolist()
    counts: dict[tuple[str, object], int] = {}
    expected = []
    for item in every:
        held = [
            (feature, value)
            for feature in max_per
            for value in colored.item_index.values(feature, colored.indices("item", [item]))[0].tolist()
            if value >= 0
        ]
        if all(counts.get(one, 0) < max_per[one[0]] for one in held) and len(expected) < k:
            expected.append(item)
            for one in held:
                counts[one] = counts.get(one, 0) + 1
    if not retrieves or len(every) < 40:  # with more, k decides how many are retrieved
        assert found == expected


@given(
    values=arrays(np.float64, st.integers(0, 60), elements=st.integers(-3, 3).map(float)),
    k=st.integers(1, 70),
)
def test_the_top_is_the_start_of_a_full_sort(values: np.ndarray, k: int):
    ties = np.random.default_rng(len(values)).permutation(len(values))
    order = sorted(range(len(values)), key=lambda row: (-values[row], ties[row]))
    assert ranking.top(values, ties, k).tolist() == order[:k]


@pytest.mark.parametrize("rows", [0, 1, 2048, 2049, 10_000])
def test_an_objective_is_computed_in_blocks(rows: int):
    """It is the client's, so it may be long."""
    rng, seen = np.random.default_rng(rows), []
    scores, kept = rng.random((rows * 2, 2), np.float32), np.sort(rng.permutation(rows * 2)[:rows])
    objective = read_objective("a * b ^ 2 + log(1 + a)", ("a", "b"))

    def watched(tasks: dict[str, np.ndarray]) -> np.ndarray:
        seen.append(len(tasks["a"]))
        return objective(tasks)

    steps = ranking._values(watched, scores, kept, ("a", "b"))
    values, others = None, 0
    while values is None:
        try:
            next(steps)
            others += 1
        except StopIteration as end:
            values = end.value
    assert_array_equal(values, objective({"a": scores[kept, 0], "b": scores[kept, 1]}))
    assert max(seen) <= ranking.BLOCK
    assert others == len(seen) - 1


def test_retrieved_items_that_do_not_pass_are_replaced_by_the_most_popular(colored: mgoe.Bundle):
    colored.retrieval = Half()
    score_sum, index = np.asarray(colored.graph.latest.arrays["item_sum"]), colored.item_index
    [ranked] = ranking.finished(ranking.rank(colored, colored, [3], query(colored, k=5)))
    assert (len(ranked.scored), ranked.exact) == (40, False)
    asked = query(colored, k=5, where={"color": ["red", "green"]})
    held = index.values("color", np.arange(colored.n_items))[:, 0]
    passing = np.flatnonzero((held == 1) | (held == 2))
    by_popularity = passing[np.argsort(-score_sum[passing], kind="stable")]
    assert index.most_popular(7, asked.filters, asked.left_out).tolist() == by_popularity[:7].tolist()
    kept = Half().candidates(colored.view, 3, 4 * 40)
    kept = kept[np.isin(held[kept], [1, 2])]
    own = colored.retrieval.own_items(colored.view, 3)
    scored = ranking._retrieved(colored, colored.retrieval, colored, asked, 3, own, 40)[0]
    assert {*kept} | {*by_popularity[~np.isin(by_popularity, kept)][: 40 - len(kept)]} == {*scored}
    narrow = query(colored, k=5, where={"color": "red", "tags": "sale"})
    [ranked] = ranking.finished(ranking.rank(colored, colored, [3], narrow))
    allowed = index.passes(np.arange(colored.n_items), narrow.filters, narrow.left_out)
    assert (len(ranked.scored), ranked.exact) == (allowed.sum(), True)


def test_exact_is_scoring_everything(colored: mgoe.Bundle):
    colored.retrieval = None
    everything = colored.recommend([1, 2], 30)
    colored.retrieval = Half()
    assert not everything.equals(colored.recommend([1, 2], 30))
    assert everything.equals(colored.recommend([1, 2], 30, exact=True))
    assert len(colored.recommend([1], 1000)) == colored.n_items  # k beyond what is retrieved retrieves more


@pytest.mark.parametrize("exact", [False, True])
def test_the_items_of_a_user_are_looked_up_once(colored: mgoe.Bundle, exact: bool):
    asked = list[int]()

    class Counted(Linked):
        def own_items(self, view: View, user: int) -> OwnItems:
            asked.append(user)
            return super().own_items(view, user)

    colored.retrieval = Counted()
    colored.recommend(colored.ids("user", np.arange(3)), 5, exclude_known=True, exact=exact)
    assert asked == [0, 1, 2]


def test_equal_items_come_by_popularity_and_equal_candidates_as_they_were_given(colored: mgoe.Bundle):
    colored.retrieval = Half()
    asked, given = query(colored, objective="1", k=9), np.array([4, 1, 3])
    [found] = ranking.finished(ranking.rank(colored, colored, [3], asked))
    candidates = Half().candidates(colored.view, 3, 40)
    popularity = np.asarray(colored.graph.latest.arrays["item_sum"])[candidates]
    assert found.items.tolist() == candidates[np.argsort(-popularity, kind="stable")][:9].tolist()
    [found] = ranking.finished(ranking.rank(colored, colored, [3], asked, given))
    assert found.items.tolist() == given.tolist()


def test_an_item_that_is_new_is_the_least_popular(colored: mgoe.Bundle):
    n = colored.graph.latest.n_items
    places = colored.item_index.places(np.arange(n + 2))
    assert sorted(places[:n].tolist()) == [*range(n)]
    assert places[n:].tolist() == [n, n]


def test_numbers_of_items_may_be_of_any_whole_type_and_size(colored: mgoe.Bundle):
    n = colored.size("item")
    whole = colored.recommend([7], k=n, exact=True)
    for k in (np.int64(n), np.uint16(n), 10**30):
        assert colored.recommend([7], k=k).equals(whole)
        assert colored.recommend([7], k=k, max_per={"color": 10**30}).equals(whole)


def test_filters_that_leave_nothing_leave_an_empty_answer(colored: mgoe.Bundle):
    everything = colored.ids("item", np.arange(colored.n_items))
    for retrieval in (None, Half()):
        colored.retrieval = retrieval
        for filters in (
            {"where": {"color": "no color"}},
            {"at_least": {"click": 1.1}},
            {"exclude": everything, "max_per": {"color": 1}},
        ):
            found = colored.recommend([1, 2], **filters)
            assert (len(found), list(found.columns)) == (0, ["user", "rank", "item", "score", "click", "buy"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"where": {"colour": "red"}}, "'colour' is not an item feature .* did you mean 'color'"),
        ({"where": {"price": 3}}, "a number, of which the bundle holds only a standard score"),
        ({"where": {"color": []}}, "at least one value, found none"),
        ({"where": {"color": [["red"]]}}, "a value or a list of values, found list"),
        ({"max_per": {"colour": 1}}, "did you mean 'color'"),
        ({"max_per": {"color": 0}}, r"max_per\.color: Input should be greater than or equal to 1, found 0"),
    ],
)
def test_a_filter_that_cannot_be_names_the_mistake(colored: mgoe.Bundle, arguments: dict, sentence: str):
    with pytest.raises(MgoeError, match=sentence):
        colored.recommend(1, **arguments)


def test_a_bundle_without_item_features_says_so(finished: Path):
    with pytest.raises(BundleError, match=r"has none; see data\.items\.features"):
        mgoe.load(finished / "bundle").recommend(1, where={"color": "red"})


def query(bundle: mgoe.Bundle, objective: str = "click", **asked: Any) -> ranking.Query:
    return ranking.Query.read(bundle, RankingRequest(**asked), objective, np.empty(0, np.int64))


class Linked(Half):
    """Retrieves the even items, and reads as a link how often a digit is in an item's index."""

    blend = Blend(log_odds=-0.5, sampling=0.25, linked=1.0, session=-2.0)

    def signals(
        self, own: OwnItems, items: np.ndarray, log_odds: np.ndarray, sampling: np.ndarray
    ) -> np.ndarray:
        assert (np.diff(items) > 0).all()
        return np.column_stack([log_odds, sampling, items % 10, items % 7, np.zeros((len(items), 3))])


@up_to(10)
@given(user=st.integers(-1, 150), exact=st.booleans(), least=st.floats(0, 0.02))
def test_a_list_is_ordered_by_the_blend_and_shows_the_models_probabilities(
    colored: mgoe.Bundle, user: int, exact: bool, least: float
):
    colored.retrieval = Linked()
    id = colored.ids("user", np.array([user]))[0] if user >= 0 else "nobody"
    found = colored.recommend(id, 25, "click", exact=exact, at_least={"click": least})
    items = np.arange(colored.n_items) if exact else colored.retrieval.candidates(colored.view, user, 40)
    shown = colored.predict(id, colored.ids("item", items))["click"].to_numpy(np.float64)
    odds, sampling = np.log(shown / (1 - shown)), colored.shift(items)
    blend = colored.retrieval.blend
    order = odds + np.stack([odds, sampling, items % 10, items % 7], axis=1) @ np.array(blend[:4])
    kept = np.flatnonzero(shown >= least)
    best = kept[np.argsort(-order[kept], kind="stable")[:25]]
    assert_allclose(
        order[np.searchsorted(items, colored.indices("item", found["item"]))], order[best], atol=1e-3
    )
    again = colored.predict(id, found["item"])["click"] if len(found) else found["click"]
    assert_allclose(found["click"], again, rtol=1e-5)
