"""What is known of each column of a log's sample: its type, its values, and what its name says."""

import re
from dataclasses import dataclass
from typing import Any

from mgoe.data.columns import Table, only_row, read_id
from mgoe.data.log import NO_ROWS
from mgoe.data.times import read_time
from mgoe.errors import DataError

LEAST = 4
"""Rows needed to tell columns apart: a history and three windows take one row each."""
USER = r"user|uid|customer|client|member|visitor|viewer|account|buyer|person|household|player|session"
ITEM = (
    r"item|iid|product|sku|goods|article|video|movie|film|song|track|book|news|content|asset"
    r"|offer|listing|business|merchant|ad"
)
SECOND = r"session|offer|listing|business|merchant|ad"
"""Names of users and items only in a log without better ones: beside a user or an item, these are where and
with whom something happened."""
TIME = r"time|timestamp|ts|date|datetime|day|when|created"
BEHAVIOR = r"behaviou?r|action|event|interaction|activity|operation|type|verb"
POSITION = r"position|pos|slot|rank|place"
WEIGHT = r"weight"
REQUEST = r"request|req|impression"
UNIFORM = r"uniform(?:ly)?|rand(?:om|omly)?"
AMOUNT = r"rating|stars|score|amount|spent|revenue|gmv|price|duration|dwell|stay|watch|play|seconds|minutes"
STRENGTH: tuple[str, ...] = (
    r"impression|show|expos\w*",
    r"view|pv|visit|browse|open|detail",
    r"click|clk|tap",
    r"long_?view|play|watch|finish|read",
    r"like|thumb|fav|favou?r(?:ite)?|collect|save|bookmark|wish\w*|star",
    r"comment|forward|share|follow|subscribe",
    r"cart|basket|add\w*|checkout",
    r"buy|purchase|order|pay|paid|conversion|convert|transaction|sale|bought|deposit",
)
"""Names of behaviours, weakest to strongest."""


@dataclass(frozen=True)
class Column:
    """What is known about a column.

    Args:
        name: Its name.
        kind: `integer`, `float`, `boolean`, `string`, `time`, `list`, `vector` or `other`.
        distinct: Number of different values in the sample.
        low, high: Least and greatest value; not given for times.
        parses: Whether it holds strings that can be read as times.
        whole: Whether it holds numbers of a type with fractions, but no fractions.
        done: Number of rows above 0, of numbers and booleans.
        almost: Whether it holds strings of which most can be read as times.
    """

    name: str
    kind: str
    distinct: int
    low: Any
    high: Any
    parses: bool
    whole: bool
    done: int = 0
    almost: bool = False

    def named(self, words: str) -> bool:
        """Return whether a part of the name is one of the words."""
        return any(re.fullmatch(f"(?:{words})s?(?:id)?", part) for part in self._parts)

    def is_a(self, words: str) -> bool:
        """Return whether the name ends in one of the words: `user` and `user_id`, not `user_age`."""
        parts = [part for part in self._parts if not re.fullmatch("(?:id|key|code|hash|uuid)?", part)]
        return bool(parts) and re.fullmatch(f"(?:{words})s?(?:id)?", parts[-1]) is not None

    @property
    def _parts(self) -> list[str]:
        return re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.name).lower())

    @property
    def is_number(self) -> bool:
        """Whether it holds numbers."""
        return self.kind in ("integer", "float")

    @property
    def binary(self) -> bool:
        """Whether it holds 0 and 1, and both occur."""
        return self.kind == "boolean" or (
            self.is_number and (self.distinct, self.low, self.high) == (2, 0, 1)
        )

    @property
    def moment(self) -> bool:
        """Whether it can be read as a time."""
        if self.is_number and self.distinct > 2:  # 1998 to 2039, in one of four units
            return any(9e8 * scale <= self.low and self.high <= 2.2e9 * scale for scale in (1, 1e3, 1e6, 1e9))
        return self.parses or (self.kind == "time" and self.distinct > 0)

    @property
    def id(self) -> bool:
        """Whether it can name users or items.

        A float can only by its name: pandas writes a column of integers with gaps as floats.
        """
        named = self.named(f"{USER}|{ITEM}")
        held = self.kind in ("integer", "string") or (self.whole and named and not self.named(AMOUNT))
        return held and not self.parses and self.distinct > 1 and (not self.binary or named)


def measure_columns(sample: Table, place: str) -> list[Column]:
    """Measure every column of a staged sample in one scan."""
    measures = {"rows": sample.count()}
    kinds = [_kind(sample[name].type()) for name in sample.columns]
    for k, name in enumerate(sample.columns):
        column, kind = sample[name], kinds[k]
        measures[f"nulls{k}"] = column.isnull().sum()
        if kind not in ("list", "vector", "other"):
            measures[f"distinct{k}"] = column.nunique()
        if kind not in ("list", "vector", "other", "time"):  # a time may be infinite
            measures[f"low{k}"], measures[f"high{k}"] = column.min(), column.max()
        if kind in ("integer", "float", "boolean"):
            measures[f"done{k}"] = (column.cast("float64") > 0).sum()
        if kind == "float":
            _, (_, broken) = read_id(column, name, "")
            measures[f"broken{k}"] = broken.bad.fill_null(False).any()
        if column.type().is_string():
            measures[f"read{k}"] = read_time(column, name, "auto", "").count()
    held = only_row(sample.aggregate(**measures))
    if not held["rows"]:
        raise DataError(place, NO_ROWS)
    if held["rows"] < LEAST:
        raise DataError(
            place,
            f"at least {LEAST} rows are needed to guess what columns mean, found {held['rows']}; "
            "add more rows, or write the configuration by hand",
        )
    return [
        Column(
            name,
            kinds[k],
            held.get(f"distinct{k}") or 0,
            held.get(f"low{k}"),
            held.get(f"high{k}"),
            parses=0 < held["rows"] - (held[f"nulls{k}"] or 0) == held.get(f"read{k}"),
            whole=held.get(f"broken{k}") is False,
            done=held.get(f"done{k}") or 0,
            almost=2 * (held.get(f"read{k}") or 0) > held["rows"] - (held[f"nulls{k}"] or 0),
        )
        for k, name in enumerate(sample.columns)
    ]


def _kind(kind: Any) -> str:
    tests = {
        "boolean": kind.is_boolean(),
        "integer": kind.is_integer() or (kind.is_decimal() and kind.scale == 0),
        "float": kind.is_floating() or kind.is_decimal(),
        "string": kind.is_string() or kind.is_uuid(),
        "time": kind.is_date() or kind.is_timestamp(),
        "vector": kind.is_array() and kind.value_type.is_floating(),
        "list": kind.is_array(),
    }
    return next((name for name, holds in tests.items() if holds), "other")


def strength(name: str) -> int | None:
    """Return the place of a behaviour in the order from weak to strong; None if the name says nothing."""
    places = (
        place
        for part in re.split(r"[^a-z]+", name.lower())
        for place, words in enumerate(STRENGTH)
        if re.fullmatch(f"(?:is)?(?:{words})(?:s|ed|ing)?", part)
    )
    return max(places, default=None)
