"""A type of category is known again when it is asked for, or refused."""

from pathlib import Path

import pyarrow as pa
import pytest

from mgoe.config import FeatureSettings
from mgoe.data import connect
from mgoe.data.features import fit_encoders, read_feature
from mgoe.errors import DataError

READ = {
    "BOOLEAN": ("true", "false"),
    "TINYINT": ("7", "-7"),
    "UBIGINT": ("7", "18446744073709551615"),
    "HUGEINT": ("7", "8"),
    "FLOAT": ("7", "8.25"),
    "DOUBLE": ("7", "8"),
    "DECIMAL(12, 2)": ("7", "8.50"),
    "DECIMAL(38, 0)": ("7", "8"),
    "VARCHAR": ("seven", " 8 "),
    "ENUM('seven', 'eight')": ("seven", "eight"),
    "DATE": ("2020-01-01", "1969-12-31"),
    "UUID": ("00000000-0000-0000-0000-000000000007", "123e4567-e89b-12d3-a456-426614174000"),
}
REFUSED = {
    "TIME": "12:00",
    "TIMESTAMP": "2020-01-01",
    "TIMESTAMP_S": "2020-01-01",
    "TIMESTAMP_NS": "2020-01-01",
    "TIMESTAMPTZ": "2020-01-01",
    "INTERVAL": "1 day",
}


def codes(folder: Path, kind: str, values: tuple[str, ...], several: bool) -> list[bool]:
    """Check that each value on which encoders are fitted has an index of its own; the last row is null."""
    con = connect(folder)
    listed = ", ".join(f"({'[' * several}CAST('{value}' AS {kind}){']' * several})" for value in values)
    con.con.execute(f"CREATE TABLE rows AS SELECT * FROM (VALUES {listed}, (NULL)) AS t(value)")
    table = con.table("rows")
    feature = FeatureSettings(name="value", kind="multi" if several else "categorical")
    column, _ = read_feature(table["value"], feature, "log")
    table = table.select(value=column)
    encoders = fit_encoders(table, {"value": "value"}, [feature])
    rows: pa.Table = table.to_pyarrow()
    return [
        bool(code > 0)
        for code in encoders.encode({"value": rows["value"]}, len(rows))["value"].reshape(len(rows), -1)[:, 0]
    ]


VECTORS = ("FLOAT", "DOUBLE")


@pytest.mark.parametrize("kind", VECTORS)
def test_a_list_of_numbers_is_refused_as_a_vector(kind: str, tmp_path: Path):
    with pytest.raises(DataError, match="a list of numbers is a vector, and would be read as one category"):
        codes(tmp_path, kind, READ[kind], several=True)


@pytest.mark.parametrize(
    ("kind", "several"),
    [(kind, several) for kind in READ for several in (False, True) if not (several and kind in VECTORS)],
)
def test_every_fitted_category_is_found_again(kind: str, several: bool, tmp_path: Path):
    assert codes(tmp_path, kind, READ[kind], several) == [True, True, False]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("kind", REFUSED)
def test_times_are_refused_as_categories(kind: str, several: bool, tmp_path: Path):
    with pytest.raises(
        DataError,
        match=r"log, column 'value': a category must not be a time, found .*; convert it to text",
    ):
        codes(tmp_path, kind, (REFUSED[kind],), several)
