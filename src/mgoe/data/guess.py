"""What the columns of an unknown log mean, guessed from their names, types and values."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ibis

from mgoe.config import did_you_mean
from mgoe.data.columns import Check, Table, enforce, only_row, read_id
from mgoe.data.draft import Draft, write_draft
from mgoe.data.guess_side import guess_side_table
from mgoe.data.log import (
    NO_ROWS,
    UNNAMED_INDEX,
    open_log,
    place_of,
    require_columns,
    stage,
    work_database,
)
from mgoe.data.times import read_time
from mgoe.errors import DataError

SAMPLE = 200_000
"""Rows of which the values are looked at."""
LEAST = 4
"""Rows needed to tell columns apart: a history and three windows take one row each."""
RARE = 0.002
"""Share of the rows below which a behaviour does not become a task."""
FEW_DONE = 100
"""Rows of the sample below which a label does not become a task, if another has as many: it can neither be
learned nor measured."""
MOST_TASKS = 6
PLAIN = "interaction"
"""Name of the task of a log that holds users, items and times alone."""
MOST_BEHAVIORS = 50

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


def guess(
    paths: str | Path | Sequence[str | Path],
    columns: Mapping[str, str] | None = None,
    tasks: Sequence[str] | None = None,
    sides: Mapping[str, str | Path] | None = None,
) -> str:
    """Look at a log and return the configuration that a person would start with, as commented YAML.

    Args:
        paths: Parquet or CSV files, folders or globs.
        columns: The columns that are known: `user`, `item`, `time`, `behavior`. Others are guessed.
        tasks: Behaviours or label columns that become the tasks, weakest first; None guesses them. They are
            label columns if the log has a column of each name and no column of behaviours is given.
        sides: Side tables of `user` and `item`, whose features are proposed.

    Raises:
        DataError: The log or a side table cannot be read, a given column is missing, or it is unclear which
            column is the user, the item, the time or what happened.

    Example:
        >>> import yaml
        >>> yaml.safe_load(guess(log))["tasks"]
        ['click', 'favour', 'cart', 'buy']
    """
    named = [str(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    place, known = place_of(named), columns or {}
    with TemporaryDirectory(prefix="mgoe-") as folder, work_database(Path(folder, "work"), place) as con:
        source = open_log(con, named, "LOG")
        require_columns(source, known.items(), place)
        every = {name: name for name in source.columns if not UNNAMED_INDEX.fullmatch(name)}
        sample = stage(con, source.limit(SAMPLE), every, "sample", named[0])
        found = _columns(sample, place)
        vectors = [column.name for column in found if column.kind == "vector"]
        if "time" not in known:
            _check_readable(found, sample, place)
        draft = replace(_draft(found, source, place, known, tasks), vectors=vectors)
        about = {
            node: guess_side_table(con, source, draft.columns[node], node, file)
            for node, file in (sides or {}).items()
        }
        return write_draft(named, draft, source, place, about)


def _check_readable(columns: list[Column], sample: Table, place: str) -> None:
    """Refuse a log without a time whose column of texts is one but for some values."""
    for column in columns:
        if column.almost and column.named(TIME) and not any(one.moment for one in columns):
            text = sample[column.name]
            bad = text.notnull() & read_time(text, column.name, "auto", place).isnull()
            rule, fix = "a time must be readable, as most are here", "fix or leave out such rows"
            enforce(sample, [Check(column.name, bad, text, rule, fix)], place)


def _columns(sample: Table, place: str) -> list[Column]:
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


def _draft(
    columns: list[Column],
    source: Table,
    place: str,
    known: Mapping[str, str],
    tasks: Sequence[str] | None,
) -> Draft:
    named = {column.name: column for column in columns}
    time = known.get("time") or _time(columns, source, place)
    ids = [column for column in columns if column.id and column.name != time]
    labels = [column for column in columns if column.binary and column.name != time]
    labelled = tasks is not None and all(task in named for task in tasks)
    behavior = known.get("behavior") or (None if labelled else _behavior(columns, ids, labels))
    ids = [column for column in ids if column.name != behavior]
    user, item = (named.get(known.get(node, "")) for node in ("user", "item"))
    user = user or _best([column for column in ids if column != item], USER)
    item = item or _best([column for column in ids if column != user], ITEM)
    if user is None or item is None:  # the columns with most values, the user written before the item
        rest = [column for column in ids if column not in (user, item) and column.distinct > 2]
        rest = sorted(rest, key=lambda column: -column.distinct)[: 2 - bool(user) - bool(item)]
        left = iter(sorted(rest, key=columns.index))
        user, item = user or next(left, None), item or next(left, None)
    if user is None or item is None:
        same = [c.name for c in columns if c.kind in ("integer", "string") and c.distinct == 1]
        more = f"{', '.join(same)} hold a single value, so add more rows, or " if same else ""
        raise DataError(
            place,
            "a log needs a user and an item, found no column like them among "
            f"{', '.join(column.name for column in columns)}; "
            f"{more}name them yourself; ids are columns of whole numbers or texts, not an index",
        )
    keys = {"user": user.name, "item": item.name, "time": time}
    unknown = [c for c in ids if c not in (user, item) and c.distinct <= MOST_BEHAVIORS]  # perhaps behaviours
    plain = (
        behavior is None
        and not labelled
        and all(column.name in keys.values() for column in [*labels, *unknown])
    )
    if plain and len(tasks or [PLAIN]) == 1:
        amounts = [c for c in columns if c.is_number and c.named(AMOUNT) and c.distinct > 2]
        if tasks is not None or not [c for c in amounts if c.name not in keys.values()]:
            return Draft(keys, events=True, tasks=_names(tasks or [PLAIN]))
    if behavior is None:
        if missing := [task for task in tasks or () if task not in named]:
            raise DataError(
                place,
                "a task is a label column, or a value of a column of behaviours, found no column "
                f"{missing[0]!r} and no such values{did_you_mean(missing[0], [*named])}; "
                "fix the task, or name the column of behaviours",
            )
        wanted = None if tasks is None else [named[task] for task in tasks]
        return _draft_of_labels(keys, columns, labels, place, wanted)
    if tasks is not None:
        return Draft(keys | {"behavior": behavior}, events=True, tasks=_names(tasks))
    return _draft_of_behaviors(keys, behavior, source)


def _time(columns: list[Column], source: Table, place: str) -> str:
    moments = [column for column in columns if column.moment]
    if not moments:
        for column in columns:
            if column.named(TIME) and column.is_number:
                read_time(source[column.name], column.name, "auto", place)  # its error may say what is wrong
        raise DataError(
            place,
            "a log needs a time (a date, a timestamp, or a number since 1970), found none among "
            f"{', '.join(column.name for column in columns)}; add one; texts are read if "
            "all are like 2026-01-31 18:30:00, none like 31.01.2026: name the column in a configuration "
            "(data.time), and `mgoe run` says which row cannot be read",
        )
    return max(moments, key=lambda c: (c.named(TIME), c.kind == "time", c.parses, c.distinct)).name


def _behavior(columns: list[Column], ids: list[Column], labels: list[Column]) -> str | None:
    """Return the column of behaviours: by its values, or by its name if no label is named like a
    behaviour."""
    one = [c for c in columns if c.kind == "string" and c.distinct == 1 and c.named(BEHAVIOR)]
    few = [*(column for column in ids if 1 < column.distinct <= MOST_BEHAVIORS), *one]
    by_values = [
        column
        for column in few
        if column.kind == "string" and None not in (_strength(str(column.low)), _strength(str(column.high)))
    ]
    by_values.sort(key=lambda column: not column.named(BEHAVIOR))
    labelled = any(_strength(column.name) is not None for column in labels)
    by_name = [] if labelled else [column for column in few if column.named(BEHAVIOR)]
    return next((column.name for column in [*by_values, *by_name]), None)


def _draft_of_behaviors(keys: dict[str, str], behavior: str, source: Table) -> Draft:
    """Make tasks of the frequent behaviours, weakest first."""
    values = source.filter(source[behavior].notnull()).group_by(value=source[behavior].cast("string"))
    counted = values.aggregate(n=ibis._.count()).order_by([ibis.desc("n"), "value"]).to_pyarrow()
    counts = {row["value"]: row["n"] for row in counted.to_pylist()}
    total = sum(counts.values())
    kept = [value for value, n in counts.items() if n >= RARE * total][:MOST_TASKS]
    if all(_strength(value) is not None for value in kept):
        kept.sort(key=lambda value: _strength(value) or 0)  # otherwise the rarer, the stronger
    return Draft(
        keys | {"behavior": behavior},
        events=True,
        tasks=_names(kept),
        rare={value: n for value, n in counts.items() if value not in kept},
    )


def _draft_of_labels(
    keys: dict[str, str],
    columns: list[Column],
    labels: list[Column],
    place: str,
    wanted: Sequence[Column] | None,
) -> Draft:
    """Make tasks of the labels, weakest first, and features of what is left."""
    free = [column for column in columns if column.name not in keys.values() and column not in (wanted or ())]
    best = {
        "position": _best([column for column in free if column.kind == "integer"], POSITION),
        "weight": _best([column for column in free if column.kind == "float"], WEIGHT),
        "uniform": _best([column for column in free if column.binary], UNIFORM),
        "request": _best([c for c in free if c.id and c.name.lower().endswith("id")], REQUEST),
    }
    roles = {role: column for role, column in best.items() if column is not None}
    labels = [column for column in labels if column != roles.get("uniform")]
    named = [c for c in labels if _strength(c.name) is not None or c.named("label|target|y")] or labels
    named = [column for column in named if column.name not in keys.values()]
    amounts = [c for c in free if c.is_number and c.named(AMOUNT) and not c.binary and c.distinct > 2]
    often = [column for column in named if column.done >= FEW_DONE] or named
    tasks = sorted(often, key=lambda column: _strength(column.name) or 0)[:MOST_TASKS] or amounts[:1]
    tasks = tasks if wanted is None else list(wanted)
    rare = {column.name: column.done for column in named if column not in tasks}
    if not tasks:
        raise DataError(
            place,
            "a log needs a column of behaviours, or label columns of 0 and 1, found neither; "
            "add one, or write the configuration by hand",
        )
    names = _names([column.name for column in tasks])
    return Draft(
        keys | {role: column.name for role, column in roles.items()},
        tasks=names,
        amounts=[name for name, column in zip(names, tasks, strict=True) if not column.binary],
        rare=rare,
        context={
            column.name: {"float": "numeric", "list": "multi"}.get(column.kind, "categorical")
            for column in free
            if column not in (*named, *tasks, *amounts, *roles.values())
            and column.kind not in ("time", "vector", "other")
            and not column.moment
        },
    )


def _best(columns: Sequence[Column], words: str) -> Column | None:
    """Return the column named like one of the words: a first choice, then `..._id`, then the one with most
    values."""

    def rank(column: Column) -> tuple[bool, bool, int]:
        first_choice = column.is_a(words) and not column.named(SECOND)
        return first_choice, column.name.lower().endswith("id"), column.distinct

    return max((column for column in columns if column.named(words)), key=rank, default=None)


def _strength(name: str) -> int | None:
    """Return the place of a behaviour in the order from weak to strong; None if the name says nothing."""
    places = (
        place
        for part in re.split(r"[^a-z]+", name.lower())
        for place, words in enumerate(STRENGTH)
        if re.fullmatch(f"(?:is)?(?:{words})(?:s|ed|ing)?", part)
    )
    return max(places, default=None)


def _names(values: Sequence[str]) -> dict[str, str]:
    """Return a task name for each value, of the characters that a name may have."""
    named: dict[str, str] = {}
    for value in values:
        name = (re.sub(r"\W+", "_", value, flags=re.ASCII).strip("_").lower() or "task").removeprefix("is_")
        name = name if name[0].isalpha() else f"task_{name}"
        while name in named:
            name += "_"
        named[name] = value
    return named
