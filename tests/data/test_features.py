from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import FeatureSettings
from mgoe.data import Encoders, FeatureEncoders, Prepared, SideFeatures, Vocabulary
from mgoe.data.features import LONGEST
from mgoe.errors import ConfigError, DataError
from tests.data import logs

SIDE = pd.DataFrame(
    {
        "id": [1, 0, 9, 2],
        "city": ["Kyiv", "Łódź", "Kyiv", None],
        "age": [30.0, 40.0, 50.0, None],
        "tags": ["a| b", "b||c|a", "", None],
        "kinds": [[3, 1], [], None, [2, 2]],
    }
)
FEATURES = [
    {"name": "city"},
    {"name": "age", "kind": "numeric"},
    {"name": "tags", "kind": "multi"},
    {"name": "kinds", "kind": "multi"},
]


def with_side(folder, side: pd.DataFrame = SIDE, features=FEATURES, run=logs.event_settings) -> Prepared:
    side.to_parquet(folder / "side.parquet")
    table = {"path": str(folder / "side.parquet"), "id": "id", "features": features}
    return logs.prepared(logs.quiet_events(), run(data={"users": table}), folder / "out")


def test_side_features_by_index(tmp_path):
    data = with_side(tmp_path)  # users 0 and 1 have codes 0 and 1; 9 and 2 are not in the log
    side = data.user_side
    assert side.encoders.sizes == {"city": 3, "tags": 4, "kinds": 4}
    known = side.gather([0, 1])
    assert known["city"].tolist() == [2, 1]  # Kyiv 1, Łódź 2
    assert known["tags"].tolist() == [[2, 3, 1, -1], [1, 2, -1, -1]]
    assert known["kinds"].tolist() == [[-1, -1], [3, 1]]
    np.testing.assert_allclose(
        known["numeric"][:, 0], [0, -np.sqrt(1.5)], rtol=1e-6
    )  # mean 40, deviation sqrt(200 / 3)
    assert data.summary["side"]["users"] == {"rows": 4, "in_log": 2, "nodes_without": 0}
    gathered = side.gather([1, -1, 2, 0])
    assert gathered["city"].tolist() == [1, 0, 0, 2]
    assert gathered["kinds"].tolist() == [[3, 1], [-1, -1], [-1, -1], [-1, -1]]
    assert gathered["numeric"][1:3].tolist() == [[0.0], [0.0]]
    assert data.item_side.gather([0, 1]) == {}


def test_a_decimal_category_is_found_again(tmp_path):
    side = pd.DataFrame({"id": [0, 1], "price": [Decimal("7.00"), Decimal("7.50")]})
    encoders = with_side(tmp_path, side, [{"name": "price"}]).user_side.encoders
    for asked in ([Decimal("7"), Decimal("7.5"), None], [*side.price, Decimal("8.00")]):
        assert encoders.encode({"price": asked}, 3)["price"].tolist() == [1, 2, 0]


def test_side_features_are_memory_mapped(tmp_path):
    assert isinstance(with_side(tmp_path).user_side.arrays["city"], np.memmap)


def test_rare_categories_share_the_index_of_unseen_ones(tmp_path):
    data = with_side(tmp_path, features=[{"name": "city", "min_count": 2}])
    assert data.user_side.encoders.sizes == {"city": 2}
    assert data.user_side.gather([0, 1])["city"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("side", "features", "message"),
    [
        (
            SIDE.assign(id=[1, 0, 1, 1]),
            FEATURES,
            r"side.parquet, column 'id': a side table has one row per id, found 1 in 3 rows; keep one of "
            r"each",
        ),
        (
            SIDE.assign(id=[1, 0, None, 4]),
            FEATURES,
            r"column 'id': an id must not be null, found null in row 3",
        ),
        (
            SIDE.assign(id=[100, 101, 102, 103]),
            FEATURES,
            r"some id must be one of the log's, found none of 4 .* is data.users.id the right column\?",
        ),
        (
            SIDE.assign(age=[1.0, np.inf, 2.0, 3.0]),
            FEATURES,
            r"column 'age': a numeric feature must be finite .* found 'inf' in row 2",
        ),
        (
            SIDE.assign(age="old"),
            FEATURES,
            r"column 'age': a numeric feature must be a number, found the type string",
        ),
        (SIDE.drop(columns="city"), FEATURES, r"column 'city' \(data.users.features\) is missing"),
        (
            SIDE,
            [{"name": "kinds"}],
            r"column 'kinds': a categorical feature holds one value per row .* found the type array<int64>",
        ),
        (
            SIDE,
            [{"name": "age", "kind": "multi"}],
            r"column 'age': a several-valued feature is a list or a string split at its separator, found "
            r"the type float64",
        ),
    ],
)
def test_a_wrong_side_table_is_refused(side, features, message, tmp_path):
    with pytest.raises(DataError, match=message):
        with_side(tmp_path, side, features)


def test_a_feature_must_not_take_the_name_of_the_numbers(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"data.users.features: each feature needs a name of its own, and `numeric` is taken",
    ):
        with_side(tmp_path, SIDE.rename(columns={"age": "numeric"}), [{"name": "numeric", "kind": "numeric"}])


def test_ids_of_another_type_match_where_nothing_is_lost(tmp_path):
    data = with_side(tmp_path, SIDE.assign(id=["1", "0", "01", "x"]))
    assert data.user_side.gather([0, 1])["city"].tolist() == [2, 1]


ENCODERS = FeatureEncoders(
    features=tuple(FeatureSettings.model_validate(f) for f in FEATURES[:3]),
    vocabularies={"city": Vocabulary(pa.array(["Kyiv", "Łódź"])), "tags": Vocabulary(pa.array(["a", "b"]))},
    lengths={"tags": 2},
    moments={"age": (40.0, 10.0)},
)


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["Kyiv", "Łódź", "?", None]),
            st.none() | st.floats(0, 99),
            st.sampled_from(["a|b", "z", "", None]),
        )
    )
)
def test_encoding_is_the_same_whatever_the_library(rows):
    columns = {name: [row[k] for row in rows] for k, name in enumerate(("city", "age", "tags"))}
    types = {"city": pa.string(), "age": pa.float64(), "tags": pa.string()}
    arrow = pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})
    expected = ENCODERS.encode(columns, len(rows))
    for table in (arrow, arrow.to_pandas(), pl.from_arrow(arrow)):
        got = ENCODERS.encode({name: table[name] for name in columns}, len(rows))
        assert {name: values.tolist() for name, values in got.items()} == {
            name: values.tolist() for name, values in expected.items()
        }
    assert expected["numeric"].shape == (len(rows), 1)
    assert np.isfinite(expected["numeric"]).all()


def test_lists_and_missing_columns_are_encoded_too():
    assert ENCODERS.encode({"tags": [["b", "z"], [], None, ["a", None]]}, 4)["tags"].tolist() == [
        [2, 0],
        [-1, -1],
        [-1, -1],
        [1, -1],
    ]
    nothing = ENCODERS.encode({}, 2)
    assert (nothing["city"] == 0).all()
    assert (nothing["tags"] == -1).all()
    assert (nothing["numeric"] == 0).all()
    with pytest.raises(DataError, match="feature 'city': must have a value for each of 2 rows, found 1"):
        ENCODERS.encode({"city": ["Kyiv"]}, 2)
    with pytest.raises(DataError, match="feature 'age': must be numbers, found string"):
        ENCODERS.encode({"age": ["old", "x"]}, 2)


def test_a_fitted_category_is_found_with_any_blanks_around_it(tmp_path):
    tags = ["\u3000a| b\t", "\u00a0|a"]
    side = pd.DataFrame({"id": [0, 1], "tags": tags})
    encoders = with_side(tmp_path, side, [{"name": "tags", "kind": "multi"}]).user_side.encoders
    assert encoders.sizes == {"tags": 5}
    assert (encoders.encode({"tags": tags}, 2)["tags"] > 0).all()


@pytest.mark.parametrize(
    ("name", "values", "rule"),
    [
        ("tags", [1, 2], "must be lists, or strings split at its separator, found int64; convert it"),
        ("tags", [[["a"]], [["b"]]], "must be lists, or strings .* found list<item: list<item: string>>"),
        ("tags", [{"a": 1}, {"a": 2}], "must be lists, or strings .* found struct"),
        ("tags", [b"\xff", b"a"], "bytes must be UTF-8, or the 16 bytes of a UUID in every row, found"),
        ("city", [["Kyiv"], ["Kyiv"]], "must be one value per row, found list<item: string>; convert it"),
        ("city", [{"a": 1}, {"a": 2}], "must be one value per row, found struct"),
        ("city", [b"\xff", b"a"], "bytes must be UTF-8, or the 16 bytes of a UUID in every row, found"),
    ],
)
def test_values_of_another_shape_are_refused(name, values, rule):
    with pytest.raises(DataError, match=f"feature '{name}': {rule}"):
        ENCODERS.encode({name: values}, 2)


def test_lists_among_single_values_are_unknown():
    assert ENCODERS.encode({"city": [["Kyiv", "Kyiv"], "Kyiv"]}, 2)["city"].tolist() == [0, 1]


def test_a_separator_must_not_be_empty():
    with pytest.raises(ValueError, match="at least 1 character"):
        FeatureSettings(name="tags", kind="multi", separator="")


def test_encoders_are_copied_without_the_rest(tmp_path):
    run = logs.exposure_settings(data={"context": [{"name": "hour"}, {"name": "price", "kind": "numeric"}]})
    log = logs.quiet_exposures().assign(price=np.arange(36) % 5)
    data = logs.prepared(log, run, tmp_path / "out")
    data.save_encoders(tmp_path / "bundle")
    alone = Encoders(tmp_path / "bundle")
    assert alone.users.indices([0, 1, 2]).tolist() == [0, 1, -1]
    for mine, theirs in zip(
        alone.context_features.encode(log, 36).values(),
        data.context_features.encode(log, 36).values(),
        strict=True,
    ):
        assert (mine == theirs).all()
    assert alone.context_features.sizes == {"hour": 3}
    assert alone.user_side.gather([0]) == {}


@given(known=st.lists(st.sampled_from("ab"), max_size=LONGEST), unseen=st.integers(0, 60), data=st.data())
def test_a_long_row_keeps_its_known_categories_in_any_order(known, unseen, data):
    """The encoders are fitted on rows of at most two categories."""
    encoders = FeatureEncoders(
        (FeatureSettings(name="tags", kind="multi"),), {"tags": Vocabulary(pa.array(["a", "b"]))}, {"tags": 2}
    )
    row = data.draw(st.permutations([*known, *("x" for _ in range(unseen))]))
    codes = encoders.encode({"tags": [row, ["a"]]}, 2)["tags"]
    assert codes.shape == (2, max(2, min(len(row), LONGEST)))
    kept = codes[0][codes[0] >= 0]
    assert sorted(kept[kept > 0]) == sorted("xab".index(one) for one in known)
    assert len(kept) == min(len(row), LONGEST)
    assert codes[1].tolist() == [1] + [-1] * (codes.shape[1] - 1)


def test_test_rows_longer_than_those_of_training_are_not_cut(tmp_path):
    log = logs.quiet_exposures()
    log["tags"] = np.where(log.timestamp < logs.START + (logs.DAYS - 1) * logs.DAY, "a|b", "c|d|e|b|a")
    run = logs.exposure_settings(data={"context": [{"name": "tags", "kind": "multi"}]})
    data = logs.prepared(log, run, tmp_path / "out")
    assert data.context_features.lengths == {"tags": 2}
    train, test = (data.examples(split).context["tags"] for split in ("train", "test"))
    assert set(map(tuple, train.tolist())) == {(1, 2, -1, -1, -1)}
    assert (0, 0, 0, 2, 1) in set(map(tuple, test.tolist()))


@pytest.mark.parametrize("name", ["city", "tags", "age"])
def test_a_node_differs_if_one_feature_does(name: str):
    same = {"city": ["Rome"] * 2, "tags": pa.array([["a"]] * 2, pa.list_(pa.string())), "age": [10.0] * 2}
    other = {"city": ["Kyiv"], "tags": pa.array([["b"]], pa.list_(pa.string())), "age": [11.0]}
    side = SideFeatures(ENCODERS, ENCODERS.encode(same, 2))
    changed = ENCODERS.encode({key: values[:1] for key, values in same.items()} | {name: other[name]}, 1)
    assert side.differ(np.arange(2), changed).all()
    assert not side.differ(np.arange(2), ENCODERS.encode(same, 2)).any()


@given(data=st.data())
def test_what_is_added_later_reads_as_what_a_table_held(data: st.DataObject):
    """In any number of steps, some nodes again and again; what is known first stays."""
    n, drawn = data.draw(st.integers(0, 9)), np.random.default_rng(0)
    whole = SideFeatures(
        ENCODERS,
        ENCODERS.encode(
            {
                "city": drawn.choice(["Kyiv", "Łódź", "Rome"], n).tolist(),
                "tags": pa.array([["a", "b"][: k % 3] for k in range(n)], pa.list_(pa.string())),
                "age": drawn.normal(10, 4, n).tolist(),
            },
            n,
        ),
        pa.array([f"item {k}" for k in range(n)], pa.string()),
    )
    part = whole.at(np.arange(held := data.draw(st.integers(0, n))))
    for some in (*data.draw(st.lists(st.lists(st.integers(held, 9), unique=True))), range(held, n)):
        nodes = np.array([node for node in some if node < n], np.int64)
        part.add(nodes, whole.gather(nodes), whole.names_of(nodes))
        others = {name: values[::-1] for name, values in whole.gather(nodes).items()}
        part.add(nodes, others, ["another"] * len(nodes))
    every = np.arange(-1, n + 2)
    for name, values in whole.gather(every).items():
        assert part.column(name, every).tolist() == values.tolist()
    assert part.names_of(every) == whole.names_of(every)
