"""What the columns of an unknown log mean, guessed from their names, types and values."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import ibis

from mgoe.config import did_you_mean
from mgoe.data.columns import Check, Table, enforce
from mgoe.data.draft import Draft, write_draft
from mgoe.data.guess_side import guess_side_table
from mgoe.data.log import (
    UNNAMED_INDEX,
    open_log,
    place_of,
    require_columns,
    stage,
    work_database,
)
from mgoe.data.measured import (
    AMOUNT,
    BEHAVIOR,
    ITEM,
    POSITION,
    REQUEST,
    SECOND,
    TIME,
    UNIFORM,
    USER,
    WEIGHT,
    Column,
    measure_columns,
    strength,
)
from mgoe.data.times import read_time
from mgoe.errors import DataError

SAMPLE = 200_000
"""Rows of which the values are looked at."""
RARE = 0.002
"""Share of the rows below which a behaviour does not become a task."""
FEW_DONE = 100
"""Rows of the sample below which a label does not become a task, if another has as many: it can neither be
learned nor measured."""
MOST_TASKS = 6
PLAIN = "interaction"
"""Name of the task of a log that holds users, items and times alone."""
MOST_BEHAVIORS = 50


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
        found = measure_columns(sample, place)
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
        if column.kind == "string" and None not in (strength(str(column.low)), strength(str(column.high)))
    ]
    by_values.sort(key=lambda column: not column.named(BEHAVIOR))
    labelled = any(strength(column.name) is not None for column in labels)
    by_name = [] if labelled else [column for column in few if column.named(BEHAVIOR)]
    return next((column.name for column in [*by_values, *by_name]), None)


def _draft_of_behaviors(keys: dict[str, str], behavior: str, source: Table) -> Draft:
    """Make tasks of the frequent behaviours, weakest first."""
    values = source.filter(source[behavior].notnull()).group_by(value=source[behavior].cast("string"))
    counted = values.aggregate(n=ibis._.count()).order_by([ibis.desc("n"), "value"]).to_pyarrow()
    counts = {row["value"]: row["n"] for row in counted.to_pylist()}
    total = sum(counts.values())
    kept = [value for value, n in counts.items() if n >= RARE * total][:MOST_TASKS]
    if all(strength(value) is not None for value in kept):
        kept.sort(key=lambda value: strength(value) or 0)  # otherwise the rarer, the stronger
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
    named = [c for c in labels if strength(c.name) is not None or c.named("label|target|y")] or labels
    named = [column for column in named if column.name not in keys.values()]
    amounts = [c for c in free if c.is_number and c.named(AMOUNT) and not c.binary and c.distinct > 2]
    often = [column for column in named if column.done >= FEW_DONE] or named
    tasks = sorted(often, key=lambda column: strength(column.name) or 0)[:MOST_TASKS] or amounts[:1]
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
