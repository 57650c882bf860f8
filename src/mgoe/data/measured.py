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
ENOUGH = 100
"""Rows from which values tell something that a name does not."""
RATINGS = 101
"""Different values that ratings may have."""
HANDFUL = 20
"""Values up to which a column tells no users apart."""
USER = (
    r"user|uid|customer|client|member|visitor|viewer|account|buyer|person|household|player|reviewer|session"
)
ITEM = (
    r"item|iid|product|sku|goods|article|video|movie|film|song|track|book|news|content|asset"
    r"|asin|isbn|offer|listing|business|merchant|ad"
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
WATCHED = r"duration|dwell|stay|watch|play|seconds|minutes"
RATING = r"rating|overall|star|score|grade"
MEASURE = (
    r"amount|spent|revenue|gmv|price|cost|value|sale|total|disc|discount|freight|tax|fee"
    r"|quantity|qty|unit|count|cnt|size|nb|num"
)
"""Names of what belongs to a row: an order's line, not a task, and nothing that others share."""
COUNT = r"count|cnt|play|visit|times|frequency|freq|n"
"""Names of columns of sums: how often a user did something to an item."""
CALENDAR = r"year|quarter|month|week|weekday|weekend|day|dow|hour|hourmin|minute|date|holiday|season"
PROPERTY = (
    r"referr?er|device|browser|os|platform|channel|source|medium|environment|region|country|city|state|zip"
    r"|lang|language|locale|age|gender|brand|cat|cate|category|department|genre|style|store|shop|page|policy"
    r"|campaign|verified"
)
"""Names of properties of a user, an item or a click, not of what was done."""
UNDONE = r"cancel\w*|return\w*|refund\w*|remov\w*|delet\w*|dislike\w*|un(?:like|follow|subscribe|sav|fav)\w*"
"""Names of behaviours that take back another one."""
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
        filled: Number of rows with a value.
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
    filled: int = 0

    def named(self, words: str) -> bool:
        """Return whether a part of the name is one of the words."""
        return any(re.fullmatch(f"(?:{words})s?(?:id)?", part) for part in self._parts)

    def is_a(self, words: str) -> bool:
        """Return whether the name ends in one of the words: `user` and `user_id`, not `user_age`."""
        parts = [part for part in self._parts if not re.fullmatch("(?:id|key|code|hash|uuid|unique)?", part)]
        return bool(parts) and re.fullmatch(f"(?:{words})s?(?:id)?", parts[-1]) is not None

    @property
    def measure(self) -> bool:
        """Whether it is named like an amount or a rating."""
        return self.is_a(f"{MEASURE}|{AMOUNT}|{RATING}") and not self.name.lower().endswith("id")

    @property
    def rating(self) -> bool:
        """Whether it holds ratings: few numbers, named like them."""
        few = self.is_number and 2 < self.distinct <= RATINGS and self.low >= 0
        return few and self.is_a(RATING) and not self.named("propensity|policy")

    @property
    def calendar(self) -> bool:
        """Whether it is named like a part of the time."""
        return self.is_a(CALENDAR) and self.kind != "time"

    @property
    def descriptive(self) -> bool:
        """Whether it is named like a property of a user, an item or a click, or like a part of the time."""
        return self.named(PROPERTY) or self.calendar

    @property
    def few(self) -> bool:
        """Whether it holds a handful of values, in many rows."""
        return self.distinct <= HANDFUL and self.filled >= ENOUGH

    @property
    def unique(self) -> bool:
        """Whether each of many rows has a value of its own."""
        return self.distinct >= self.filled >= ENOUGH

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
            filled=held["rows"] - (held[f"nulls{k}"] or 0),
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


def takes_back(behavior: str) -> bool:
    """Return whether a behaviour is named like a cancellation, a return or another one taken back."""
    return any(re.fullmatch(UNDONE, part) for part in re.split(r"[^a-z]+", behavior.lower()))
