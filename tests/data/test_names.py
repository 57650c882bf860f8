"""Names of users and items: a column of a side table, by index, that no model reads."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from mgoe.config import SideTableSettings
from mgoe.data import Prepared
from mgoe.errors import DataError
from tests.data import logs

SIDE = pd.DataFrame(
    {
        "id": [1, 0, 9],
        "called": ["  Ann ", "", "nobody"],
        "city": ["Kyiv", "Rome", "Kyiv"],
        "tags": [[1], [], [2]],
    }
)


def prepared(folder, **table) -> Prepared:
    SIDE.to_parquet(folder / "side.parquet")
    users = {"path": str(folder / "side.parquet"), "id": "id", **table}
    return logs.prepared(logs.quiet_events(), logs.event_settings(data={"users": users}), folder / "out")


def test_a_name_is_found_by_index(tmp_path):
    data = prepared(tmp_path, name="called")
    assert data.user_side.names_of([1, 0, -1, 7]) == ["Ann", None, None, None]
    assert (data.user_side.names.drop_null().to_pylist(), len(data.item_side.names)) == (["Ann"], 0)
    assert data.user_side.arrays == {}


def test_numbers_are_names_too(tmp_path):
    assert prepared(tmp_path, name="id", features=[{"name": "city"}]).user_side.names_of([0, 1]) == ["0", "1"]


def test_names_change_no_feature(tmp_path):
    for folder in ("with", "without"):
        (tmp_path / folder).mkdir()
    features = [{"name": "city"}]
    one, other = (
        prepared(tmp_path / "with", name="called", features=features),
        prepared(tmp_path / "without", features=features),
    )
    np.testing.assert_equal(one.user_side.arrays, other.user_side.arrays)
    assert len(other.user_side.names) == 0
    assert not list(other.path.rglob("names*"))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("calld", r"column 'calld' \(data.users.name\) is missing"),
        ("tags", r"column 'tags': a name is one text or number per row, found the type array<int64>"),
    ],
)
def test_a_wrong_column_of_names_is_refused(column, message, tmp_path):
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, name=column)


def test_a_table_without_features_and_names_is_refused():
    with pytest.raises(ValidationError, match="must name a column to read"):
        SideTableSettings(path="x", id="id")
