"""What the columns of an unknown log may be, told from their names, types and values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mgoe.data.columns import read_id, read_time
from mgoe.data.expr import Table

SAMPLE = 200_000
"""Rows that are looked at."""

USER = r"user|uid|customer|client|member|visitor|viewer|account|buyer|person|player|session"
ITEM = r"item|iid|product|sku|goods|article|video|movie|film|song|track|book|news|content|asset|offer|listing|business|merchant|ad"
SECOND = r"session|offer|listing|business|merchant|ad"
"""Names of users and items where a log has no others: of several on a row these are what the others do, sell or stand in."""
TIME = r"time|timestamp|ts|date|datetime|day|when|created"
BEHAVIOR = r"behaviou?r|action|event|interaction|activity|operation|type|verb"
POSITION = r"position|pos|slot|rank|place"
WEIGHT = r"weight"
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
    """What is known of a column.

    Args:
        name: Its name.
        kind: `integer`, `float`, `boolean`, `string`, `time`, `list` or `other`.
        distinct: Different values in the sample.
        low, high: Least and greatest value, but of times.
        parses: Strings that can be read as a time.
        whole: Numbers of a type with a fraction, none of which has one.
    """

    name: str
    kind: str
    distinct: int
    low: Any
    high: Any
    parses: bool
    whole: bool

    def named(self, words: str) -> bool:
        """Whether a part of the name is one of the words."""
        return any(re.fullmatch(f"(?:{words})s?(?:id)?", part) for part in self._parts)

    def is_a(self, words: str) -> bool:
        """Whether the name says one of the words, and not something of it: `user` and `user_id`, not `user_age`."""
        parts = [part for part in self._parts if not re.fullmatch("(?:id|key|code|hash|uuid)?", part)]
        return bool(parts) and re.fullmatch(f"(?:{words})s?(?:id)?", parts[-1]) is not None

    @property
    def _parts(self) -> list[str]:
        return re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.name).lower())

    @property
    def binary(self) -> bool:
        """Whether it holds 0 and 1, and both."""
        return self.kind == "boolean" or (
            self.kind in ("integer", "float") and self.distinct == 2 and self.low == 0 and self.high == 1
        )

    @property
    def moment(self) -> bool:
        """Whether it can be read as a time."""
        if self.kind in ("integer", "float") and self.distinct > 2:  # 1998 to 2039, in one of four units
            return any(9e8 * scale <= self.low and self.high <= 2.2e9 * scale for scale in (1, 1e3, 1e6, 1e9))
        return self.parses or (self.kind == "time" and self.distinct > 0)

    @property
    def id(self) -> bool:
        """Whether it can name users or items. A number with a fraction only by its name: pandas writes ids with gaps so."""
        named = self.named(f"{USER}|{ITEM}")
        held = self.kind in ("integer", "string") or (self.whole and named and not self.named(AMOUNT))
        return held and not self.parses and self.distinct > 1 and (not self.binary or named)


def look(sample: Table) -> list[Column]:
    """Measure every column of a staged sample in one scan."""
    measures = {}
    for k, name in enumerate(sample.columns):
        column, kind = sample[name], _kind(sample[name].type())
        measures[f"nulls{k}"] = column.isnull().sum()
        if kind not in ("list", "other"):
            measures[f"distinct{k}"] = column.nunique()
        if kind not in ("list", "other", "time"):  # a time may be infinite
            measures[f"low{k}"], measures[f"high{k}"] = column.min(), column.max()
        if kind == "float":
            _, (_, broken) = read_id(column, name, "")
            measures[f"broken{k}"] = broken.bad.fill_null(False).any()
        if column.type().is_string():
            measures[f"read{k}"] = read_time(column, name, "auto", "").count()
    rows = "rows"
    held = sample.aggregate(**measures, **{rows: sample.count()}).to_pyarrow().to_pylist()[0]
    found = []
    for k, name in enumerate(sample.columns):
        given = held[rows] - (held[f"nulls{k}"] or 0)
        parses = 0 < given == held.get(f"read{k}")
        kind = _kind(sample[name].type())
        whole = held.get(f"broken{k}") is False
        found.append(
            Column(
                name,
                kind,
                held.get(f"distinct{k}") or 0,
                held.get(f"low{k}"),
                held.get(f"high{k}"),
                parses,
                whole,
            )
        )
    return found


def pick(columns: Sequence[Column], words: str, taken: Sequence[str]) -> Column | None:
    """The column that is named like one of the words: one that is no second choice, then `..._id`, then the one with most values."""
    named = [column for column in columns if column.named(words) and column.name not in taken]

    def rank(column: Column) -> tuple[bool, bool, int]:
        return (
            column.is_a(words) and not column.named(SECOND),
            column.name.lower().endswith("id"),
            column.distinct,
        )

    return max(named, key=rank, default=None)


def strength(name: str) -> int | None:
    """Place of a behaviour in the order from weak to strong; None where the name says nothing."""
    parts = re.split(r"[^a-z]+", name.lower())
    places = [
        place
        for place, words in enumerate(STRENGTH)
        for part in parts
        if re.fullmatch(f"(?:is)?(?:{words})(?:s|ed|ing)?", part)
    ]
    return max(places, default=None)


def _kind(kind: Any) -> str:
    integer = kind.is_integer() or (kind.is_decimal() and kind.scale == 0)
    tests = {
        "boolean": kind.is_boolean(),
        "integer": integer,
        "float": kind.is_floating() or kind.is_decimal(),
    }
    tests |= {
        "string": kind.is_string() or kind.is_uuid(),
        "time": kind.is_date() or kind.is_timestamp(),
        "list": kind.is_array(),
    }
    return next((name for name, holds in tests.items() if holds), "other")
