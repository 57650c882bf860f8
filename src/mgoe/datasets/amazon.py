"""Amazon Electronics, 5-core, 2014: reviews as events, since a missing review is no negative."""

import json
from pathlib import Path

from mgoe.datasets.dataset import DataSet, Download
from mgoe.datasets.reading import LAST_OUT, Workbench, as_text, first_line, in_order, moment

_REVIEWS, _PRODUCTS = "reviews_Electronics_5.json.gz", "meta_Electronics.json.gz"
_FIELDS = {"reviewerID": "VARCHAR", "asin": "VARCHAR", "overall": "DOUBLE", "unixReviewTime": "BIGINT"}
_TEXT = r"""(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")"""
"""A Python string literal in single or double quotes."""
_KEY, _LEAF = rf"'asin': {_TEXT}", rf"'categories': \[.*?{_TEXT}\]\]"


def write(bench: Workbench) -> dict[str, int]:
    """Write reviews as events `rated` (below 4 of 5) and `liked`, and the leaf of each product's last
    category path.
    """
    reviews = bench.path(_REVIEWS)
    _check_fields(bench, reviews)
    fields = ", ".join(f"{name}: '{kind}'" for name, kind in _FIELDS.items())
    bench.define(
        "raw",
        f"SELECT * FROM read_json({as_text(str(reviews))}, format = 'newline_delimited', "
        f"columns = {{{fields}}})",
    )
    bench.define("placed", f"SELECT *, {in_order('reviewerID', 'unixReviewTime, asin')} FROM raw")
    bench.write(
        "log/events.parquet",
        f"""SELECT reviewerID AS user_id, asin AS item_id,
            to_timestamp(unixReviewTime) AT TIME ZONE 'UTC' AS timestamp,
            CASE WHEN overall >= 4 THEN 'liked' ELSE 'rated' END AS behavior,
            {moment(LAST_OUT, "place")} AS part
        FROM placed""",
    )
    bench.lines("product", _PRODUCTS)
    bench.define("leaf", f"SELECT {_either(_KEY)} AS item_id, {_either(_LEAF)} AS category FROM product")
    bench.write(
        "items.parquet",
        """SELECT item_id, any_value(category) AS category FROM leaf
        WHERE item_id IN (SELECT asin FROM raw) GROUP BY item_id ORDER BY 1""",
    )
    return {}


def _either(pattern: str) -> str:
    """Select the text that a pattern finds in either kind of quotes; null if it finds none."""
    single, double = (f"regexp_extract(line, {as_text(pattern)}, {group})" for group in (1, 2))
    return f"nullif(concat({single}, {double}), '')"


def _check_fields(bench: Workbench, reviews: Path) -> None:
    line = first_line(reviews)
    try:
        found = json.loads(line)
    except ValueError:
        raise bench.other_layout(reviews, "one JSON object per line", repr(line[:60])) from None
    missing = [name for name in _FIELDS if not isinstance(found, dict) or name not in found]
    if missing:
        names = ", ".join(found) if isinstance(found, dict) else type(found).__name__
        raise bench.other_layout(
            reviews, f"the fields {', '.join(_FIELDS)}", f"{names} without {missing[0]!r}"
        )


_FOLDER = "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
ELECTRONICS = DataSet(
    name="amazon-electronics",
    title="Amazon product data 2014, Electronics, 5-core",
    form="events",
    tasks=("rated", "liked"),
    home="https://jmcauley.ucsd.edu/data/amazon",
    license="none stated; the page asks to cite its papers",
    size="496 MB and the products",
    files=(_REVIEWS, _PRODUCTS),
    write=write,
    config="amazon-electronics",
    time="by quantiles of the days (reviews have a day and no hour)",
    published="leave-last-out with one uniform negative per review, as in DIN: each user's last review is "
    "test, the one before valid; negatives are of the synthetic day, and other users' later reviews are in "
    "the history",
    layout="zhougr1993/DeepInterestNetwork, deepFM/build_dataset.py; public readers of both files, which "
    "take a review as JSON and a product as a Python literal",
    downloads=(Download(f"{_FOLDER}/{_REVIEWS}", 495_854_086), Download(f"{_FOLDER}/{_PRODUCTS}")),
    notes="A review of 4 or 5 stars counts for both tasks.",
)
