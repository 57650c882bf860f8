"""One folder that scores without the training data, exactly as the model did."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import mgoe
import mgoe.errors
from mgoe._util.files import sha256
from mgoe.bundle import Bundle
from mgoe.bundle.calibration import Calibration
from mgoe.config import (
    FeatureSettings,
    RunSettings,
    dump_settings,
)
from mgoe.data import FeatureEncoders, Prepared, Vocabulary
from mgoe.errors import BundleError, MgoeError
from mgoe.features import Reader, View
from mgoe.graph import MacroGraph
from mgoe.serving.scoring.runtime import Runtime
from mgoe.serving.scoring.scorer import Scorer


@pytest.fixture(scope="module")
def bundle(finished: Path) -> mgoe.Bundle:
    return mgoe.load(finished / "bundle")


def test_a_bundle_opened_through_a_link_stays_the_same_when_the_link_moves(finished: Path, tmp_path: Path):
    link = tmp_path / "current"
    link.symlink_to(finished / "bundle")
    opened = Bundle.open(link)
    link.unlink()
    link.symlink_to(tmp_path)
    parts = (
        opened.settings,
        opened.encoders.users.size,
        opened.graph.latest.n_users,
        opened.model,
        len(opened.metrics),
    )
    assert all(parts)


def uncalibrated(bundle: mgoe.Bundle) -> mgoe.Bundle:
    """The same, opened again."""
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"calibration": Calibration()}))


def by_hand(
    run: Path, bundle: mgoe.Bundle, users: np.ndarray, items: np.ndarray, context: dict[str, np.ndarray]
) -> np.ndarray:
    """The model's own answer, from the folders that training wrote."""
    prepared, graph = Prepared.open(run / "data"), MacroGraph.open(run / "graph")
    view = View.of(graph.latest, prepared.user_side, prepared.item_side)
    inputs = Reader(bundle.model.needs, bundle.model.spec)(view, users, items, context)
    with torch.no_grad():
        return bundle.model.predict(
            {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in inputs.items()}
        ).numpy()


def test_predictions_equal_the_models(finished: Path, bundle: mgoe.Bundle):
    test = Prepared.open(finished / "data").examples("test")
    users, items = bundle.encoders.users.ids(test.user), bundle.encoders.items.ids(test.item)
    found = bundle.predict(users, items, recalibrated=False)
    assert_allclose(
        found[list(bundle.tasks)].to_numpy(), by_hand(finished, bundle, test.user, test.item, {}), atol=1e-6
    )


def test_predictions_equal_the_models_with_context_and_side_features(shown: Path):
    bundle, prepared = mgoe.load(shown / "bundle"), Prepared.open(shown / "data")
    test = prepared.examples("test")
    devices = pa.array(np.resize(["phone", "desktop", "never seen"], len(test)).tolist())
    users, items = bundle.encoders.users.ids(test.user), bundle.encoders.items.ids(test.item)
    found = bundle.predict(users, items, {"device": devices}, recalibrated=False)
    encoded = prepared.context_features.encode({"device": devices}, len(test))
    assert_allclose(
        found[list(bundle.tasks)].to_numpy(), by_hand(shown, bundle, test.user, test.item, encoded), atol=1e-6
    )
    assert found["click"].between(0, 1).all()


def test_a_bundle_needs_nothing_but_itself(finished: Path, bundle: mgoe.Bundle, tmp_path: Path):
    moved = mgoe.load(shutil.copytree(finished / "bundle", tmp_path / "moved"))
    users, items = bundle.encoders.users.ids([0, 1]), bundle.encoders.items.ids([3, 2])
    pd.testing.assert_frame_equal(moved.predict(users, items), bundle.predict(users, items))
    assert not moved.metrics.empty


def test_a_bundle_holds_every_switch_of_its_model(bundle: mgoe.Bundle):
    """So that it stays the same model where a later default is another."""
    held = bundle.manifest.model
    assert held.options == bundle.model.options.model_dump(mode="json")
    assert {"one_gate", "gate_query", "tau"} <= held.options.keys()


def test_every_kind_of_column_is_read_alike(bundle: mgoe.Bundle):
    users, items = (
        bundle.encoders.users.ids(np.arange(5)).to_numpy(),
        bundle.encoders.items.ids(np.arange(5, 10)).to_numpy(),
    )
    expected = bundle.predict(users, items)[list(bundle.tasks)]
    kinds = [
        lambda ids: ids.tolist(),
        pd.Series,
        pl.Series,
        pa.array,
        lambda ids: pa.chunked_array([ids[:2], ids[2:]]),
        lambda ids: [str(one) for one in ids],
        lambda ids: ids.astype(np.float64),
        lambda ids: pd.Series(ids, dtype="Int64"),
    ]
    for kind in kinds:
        pd.testing.assert_frame_equal(bundle.predict(kind(users), kind(items))[list(bundle.tasks)], expected)


def test_one_id_against_many(bundle: mgoe.Bundle):
    user, items = bundle.encoders.users.ids([7]).to_pylist()[0], bundle.encoders.items.ids(np.arange(9))
    found = bundle.predict([user], items)
    pd.testing.assert_frame_equal(found, bundle.predict([user] * 9, items))
    assert len(bundle.predict(bundle.encoders.users.ids(np.arange(4)), items.slice(0, 1))) == 4


def test_lists_of_different_lengths_are_refused(bundle: mgoe.Bundle):
    with pytest.raises(BundleError, match="one length, found 2 and 3"):
        bundle.predict([1, 2], [1, 2, 3])


def test_no_pair_gives_no_row(bundle: mgoe.Bundle):
    assert list(bundle.predict([], []).columns) == ["user", "item", *bundle.tasks]


@given(
    strange=st.lists(
        st.one_of(st.none(), st.text(), st.integers(-(2**63), 2**63 - 1).map(str)), min_size=1, max_size=4
    )
)
def test_what_was_never_seen_is_scored_as_a_node_without_history(
    bundle: mgoe.Bundle, strange: list[str | None]
):
    known = set(map(str, bundle.encoders.users.ids(np.arange(bundle.encoders.users.size)).to_pylist()))
    strange = [None if one in known else one for one in strange]
    item = bundle.encoders.items.ids([0])
    found = bundle.predict(strange, item)[list(bundle.tasks)].to_numpy()
    assert_allclose(
        found, np.broadcast_to(bundle.score_indices(np.array([-1]), np.array([0])), found.shape), atol=1e-6
    )
    assert np.isfinite(found).all()


def test_the_recommended_are_the_best_of_the_whole_catalogue(bundle: mgoe.Bundle):
    user = bundle.encoders.users.ids([3]).to_pylist()[0]
    every = bundle.encoders.items.ids(np.arange(bundle.encoders.items.size))
    scores = bundle.predict([user], every)
    found = bundle.recommend(user, k=7, objective="click")
    assert_allclose(found["click"], np.sort(scores["click"])[::-1][:7], atol=1e-6)
    assert list(bundle.recommend(user, k=10_000).columns) == ["user", "rank", "item", "score", "click", "buy"]
    assert len(bundle.recommend(user, k=10_000)) == len(every)


def test_known_items_can_be_left_out(bundle: mgoe.Bundle):
    user = bundle.encoders.users.ids([3]).to_pylist()[0]
    known = set(bundle.encoders.items.ids(bundle.graph.latest.known_items(3)).to_pylist())
    assert known
    assert not known & set(bundle.recommend(user, k=10_000, exclude_known=True)["item"])


def test_an_objective_decides_the_order(bundle: mgoe.Bundle):
    user = bundle.ids("user", np.array([3]))[0]
    scores = bundle.predict(user, bundle.ids("item", np.arange(bundle.size("item"))))
    values = scores["click"].astype(float) * scores["buy"].astype(float) ** 2
    expected = scores["item"][np.argsort(-values, kind="stable")]
    assert bundle.recommend(user, 9, objective="click * buy^2")["item"].tolist() == expected[:9].tolist()
    least = float(scores["click"].median())
    kept = expected[scores["click"][expected.index] >= least]
    left = bundle.recommend(
        user, 10_000, objective="click * buy^2", exclude=expected[:2], at_least={"click": least}
    )
    assert left["item"].tolist() == [item for item in kept if item not in {*expected[:2]}]


def test_an_unknown_user_gets_recommendations(bundle: mgoe.Bundle):
    assert len(bundle.recommend("nobody", k=5)) == 5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"at_least": {"by": 0.1}}, "did you mean 'buy'"),
        ({"at_least": {3: 0.1}}, r"at_least\.3: Input should be a valid string"),
        ({"at_least": {"buy": float("nan")}}, r"at_least\.buy: Input should be a finite number, found nan"),
        ({"objective": "click * by"}, "did you mean 'buy'"),
        ({"k": 0}, "k: Input should be greater than or equal to 1, found 0"),
        ({"k": 1.5}, r"k: Input should be a valid integer, found 1\.5"),
        ({"k": "3"}, "k: Input should be a valid integer, found '3'"),
        ({"objective": 7}, "objective: Input should be a valid string, found 7"),
        ({"objective": ["click"]}, "objective: Input should be a valid string"),
        ({"at_least": {"buy": "half"}}, r"at_least\.buy: Input should be a valid number, .* found 'half'"),
        ({"at_least": ["buy"]}, "at_least: Input should be a valid dictionary"),
        ({"where": "shoes"}, "where: Input should be a valid dictionary"),
        ({"max_per": 3}, "max_per: Input should be a valid dictionary"),
    ],
)
def test_recommend_names_the_mistake(bundle: mgoe.Bundle, arguments: dict, sentence: str):
    with pytest.raises(MgoeError, match=sentence):
        bundle.recommend(1, **arguments)


def test_no_users_get_no_lists(bundle: mgoe.Bundle):
    found = bundle.recommend([])
    assert found.empty
    assert list(found.columns) == ["user", "rank", "item", "score", "click", "buy"]


def test_an_unknown_context_feature_is_refused(shown: Path):
    with pytest.raises(MgoeError, match="device"):
        mgoe.load(shown / "bundle").predict([1], [1], {"devise": ["phone"]})


def test_one_context_is_enough_for_all_pairs(shown: Path):
    bundle = mgoe.load(shown / "bundle")
    items = bundle.encoders.items.ids(np.arange(6))
    one = bundle.predict([1], items, {"device": ["phone"]})
    pd.testing.assert_frame_equal(one, bundle.predict([1], items, {"device": ["phone"] * 6}))
    assert not np.allclose(
        one["click"], bundle.predict([1], items, {"device": ["desktop"]})["click"], rtol=1e-6, atol=0
    )
    assert len(bundle.recommend(1, k=3, context={"device": ["phone"]})) == 3


@pytest.mark.parametrize(
    "tags", ["a|b", ["a", "b"], np.array(["a", "b"]), pl.Series(["a", "b"]), [["a", "b"]], ["b", "a", None]]
)
def test_the_values_of_a_several_valued_feature_are_one_context(
    finished: Path, tags: Any, monkeypatch: pytest.MonkeyPatch
):
    bundle, asked = mgoe.load(finished / "bundle"), []
    features = (FeatureSettings(name="tags", kind="multi"), FeatureSettings(name="hour", kind="numeric"))
    encoders = FeatureEncoders(
        features, {"tags": Vocabulary(pa.array(["a", "b"]))}, {"tags": 3}, {"hour": (0.0, 1.0)}
    )
    bundle.settings.data.context[:] = features
    monkeypatch.setattr(bundle.encoders, "context_features", encoders)
    monkeypatch.setattr(
        bundle,
        "score_indices",
        lambda users, items, context: asked.append(context) or np.zeros((len(users), 2)),
    )
    bundle.recommend(1, context={"tags": tags, "hour": 3})
    assert_array_equal(
        np.unique(asked[0]["tags"], axis=0),
        [[2, 1, -1] if isinstance(tags, list) and None in tags else [1, 2, -1]],
    )
    assert (asked[0]["numeric"] == 3).all()
    with pytest.raises(BundleError, match=r"context\.hour: takes one value, found 2"):
        bundle.recommend(1, context={"hour": [3, 4]})


def test_what_is_no_column_is_refused(bundle: mgoe.Bundle):
    with pytest.raises(mgoe.errors.DataError, match=r"users: must be one column .* found a generator"):
        bundle.predict((one for one in [1, 2]), [1, 2])


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished / "bundle", tmp_path / "bundle")


def test_a_folder_without_a_bundle_is_refused(tmp_path: Path):
    with pytest.raises(BundleError, match="holds no bundle"):
        mgoe.load(tmp_path)


def test_every_damaged_or_missing_file_is_named(copy: Path):
    for name in json.loads((copy / "bundle.json").read_text())["checksums"]:
        file = copy / name
        whole = file.read_bytes()
        file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        with pytest.raises(BundleError, match="does not match its checksum") as error:
            mgoe.load(copy)
        assert name in str(error.value)
        file.unlink()
        with pytest.raises(BundleError, match="is missing"):
            mgoe.load(copy)
        file.write_bytes(whole)
    mgoe.load(copy)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    "name", ["{outside}", "../outside", "graph/../../outside", "graph/../settings.yaml", "..", "/"]
)
def test_a_manifest_names_nothing_beyond_its_folder(copy: Path, tmp_path: Path, name: str, verify: bool):
    """`mgoe update` copies what it names, to the same name in another folder."""
    outside, manifest = tmp_path / "outside", json.loads((copy / "bundle.json").read_text())
    outside.write_text("here")
    manifest["checksums"][name.format(outside=outside)] = sha256(outside)
    (copy / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="must name files within the bundle"):
        Bundle.open(copy, verify)


def test_another_format_is_refused(copy: Path):
    manifest = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(BundleError, match="reads bundle format 4, found 99"):
        mgoe.load(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"format": 1}'])
def test_a_manifest_that_is_none_is_refused(copy: Path, text: str):
    (copy / "bundle.json").write_text(text)
    with pytest.raises(BundleError, match="bundle"):
        mgoe.load(copy)


def test_the_tasks_that_no_sampled_negative_enters_are_not_shifted(copy: Path):
    """A task within a sample space learns from real negatives."""
    sampled, settings = uncalibrated(mgoe.load(copy)), copy / "settings.yaml"
    raw = sampled.settings.model_dump(mode="json")
    raw["tasks"][1]["given"] = "click"
    settings.write_text(dump_settings(RunSettings.model_validate(raw)))
    within = uncalibrated(sampled)
    assert_array_equal(sampled.shifted, [True, True])
    assert_array_equal(within.shifted, [True, False])
    items = np.arange(sampled.size("item"))
    users = np.full(len(items), 3)
    learned, found = (within.score_indices(users, items, recalibrated=undo) for undo in (False, True))
    alike = learned[:, 0] >= learned[:, 1]  # with both tasks, the likelier one decides the shift
    assert alike.any()
    assert_allclose(found[alike, 0], sampled.score_indices(users, items)[alike, 0])
    assert_array_equal(found[:, 1], learned[:, 1])
    assert_allclose(
        Scorer(within, runtime=Runtime(engine="torch")).score(3, items), found, atol=1e-5, rtol=1e-4
    )


def test_the_best_of_a_task_within_a_sample_space_are_likeliest_to_have_it_at_all(copy: Path):
    raw = mgoe.load(copy).settings.model_dump(mode="json")
    raw["tasks"][1]["given"] = "click"
    (copy / "settings.yaml").write_text(dump_settings(RunSettings.model_validate(raw)))
    within = Bundle.open(copy, verify=False)
    scores = within.predict(3, within.encoders.items.ids(np.arange(within.size("item"))))
    ranked, best = within.recommend(3, k=20), np.argsort(-scores.click * scores.buy, kind="stable")[:20]
    assert ranked["item"].tolist() == scores["item"][best].tolist()
    assert_allclose(
        ranked.buy, scores.set_index("item").buy[ranked.item], rtol=1e-5
    )  # what is shown stays conditional
    assert within.objective == "click * buy"


def test_a_bundle_says_what_it_is(bundle: mgoe.Bundle, small: RunSettings):
    assert "mgoe" in repr(bundle)
    assert bundle.settings == small
    assert bundle.describe()["tasks"] == [
        {"name": "click", "kind": "binary"},
        {"name": "buy", "kind": "binary"},
    ]


def test_a_trained_bundle_has_no_parent(finished: Path, bundle: mgoe.Bundle):
    history = Prepared.open(finished / "data").history
    first, last = (int(end.to_pyarrow().as_py()) for end in (history.time.min(), history.time.max()))
    found = bundle.manifest.lineage
    assert (found.parent, found.trained, found.version) == (None, "full", mgoe.__version__)
    assert [pd.Timestamp(moment).value // 1000 for moment in found.log] == [first, last]
    assert bundle.describe()["lineage"] == found.model_dump(mode="json")
