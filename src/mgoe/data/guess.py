"""What the columns of an unknown log mean, guessed from their names, types and values."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import ibis

from mgoe.config import did_you_mean
from mgoe.data.columns import Check, Table, enforce, only_row
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
    ENOUGH,
    ITEM,
    POSITION,
    REQUEST,
    TIME,
    UNIFORM,
    USER,
    WATCHED,
    WEIGHT,
    Column,
    measure_columns,
    strength,
    takes_back,
)
from mgoe.data.nodes import Nodes, best, choose_nodes
from mgoe.data.relations import (
    HOUR,
    Order,
    Relations,
    commoner_first,
    from_weak_to_strong,
    orders,
    with_times,
)
from mgoe.data.relations import TIME as MOMENT
from mgoe.data.shape import check_rows, condition_of, notes_on, shape_of
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
MAX_KEYS = 9
"""Columns of which all pairs are compared."""
INDEX = re.compile(rf"{UNNAMED_INDEX.pattern}|Unnamed: ?\d+.*")
"""Names of an index of pandas in a file."""


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
        every = {name: name for name in source.columns if not INDEX.fullmatch(name)}
        sample = stage(con, source.limit(SAMPLE), every, "sample", named[0])
        found = measure_columns(sample, place)
        vectors = [column.name for column in found if column.kind == "vector"]
        if "time" not in known:
            _check_readable(found, sample, place)
        draft = replace(_draft(found, sample, source, place, known, tasks), vectors=vectors)
        if unread := [node for node in sides or {} if node not in draft.columns]:
            raise DataError(
                place, f"a table of {unread[0]}s needs a column with their ids, found none; add it"
            )
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
    sample: Table,
    source: Table,
    place: str,
    known: Mapping[str, str],
    tasks: Sequence[str] | None,
) -> Draft:
    named = {column.name: column for column in columns}
    time = known.get("time") or _time(columns, source, place)
    _check_times(named[time], source, place)
    timed = with_times(sample, time, place)
    ids = [column for column in columns if column.id and column.name != time]
    labels = [column for column in columns if column.binary and column.name != time]
    labelled = tasks is not None and all(task in named for task in tasks)
    behavior = known.get("behavior") or (None if labelled else _behavior(columns, ids, labels))
    given = {node: named[name] for node, name in known.items()}
    nodes = _nodes([column for column in ids if column.name != behavior], given, timed)
    user, item = nodes.user, nodes.item
    shown = labelled or (tasks is None and any(_done(label) for label in labels))
    if user is None and item is not None and shown:
        found = Draft({"item": item.name, "time": time}, notes=notes_on(None, item, columns, source))
        wanted = None if tasks is None else [named[task] for task in tasks]
        return _draft_of_labels(found, columns, labels, _amounts(columns), place, wanted)
    if user is None or item is None:
        raise _without_nodes(columns, place)
    if item.unique and "item" not in known:
        raise DataError(
            place,
            f"an item occurs in several rows, found that each of the first {item.filled:,} rows has an "
            f"{item.name!r} of its own; give a log, not a table of items or reviews, or name the item",
        )
    keys = {"user": user.name, "item": item.name, "time": time}
    rest = [column for column in columns if column.name not in (*keys.values(), behavior)]
    labels = [column for column in labels if column in rest]
    small = [c for c in rest if c in ids and c.distinct <= MOST_BEHAVIORS and c != nodes.order]
    relations = _relate(timed, user, item, [*small, *labels])
    unknown = [column for column in small if not _explained(column, user, item, relations)]
    if behavior is None and not labelled and not any(_done(column) for column in labels):
        behavior = _follows(timed, unknown, user, item)
    draft = Draft(
        keys,
        events=True,
        shape=shape_of(nodes, user, item, rest, relations, behavior),
        notes=notes_on(nodes.order, item, rest, source),
        others={node: [column.name for column in others] for node, others in nodes.others.items()},
        where=condition_of(rest),
    )
    if behavior is not None:
        keys["behavior"] = behavior
        if tasks is not None:
            return replace(draft, tasks=_names(tasks))
        return _draft_of_behaviors(draft, timed, source)
    amounts = _amounts(rest)
    if tasks is None:
        rated = any(column.rating for column in amounts)
        labels = [c for c in labels if _done(c) or not (rated or _explained(c, user, item, relations))]
        check_rows(rest, user, item, relations, place, bool(labels or rated))
    unsure = unknown if tasks is not None or item.filled < ENOUGH else []  # few rows show nothing
    if not (labelled or labels or unsure) and (amounts == [] if tasks is None else len(tasks) == 1):
        told = [column for column in small if column not in unknown]
        return _draft_of_rows(draft, told, unknown, (tasks or [PLAIN])[0])
    if missing := [task for task in tasks or () if task not in named]:
        raise DataError(
            place,
            "a task is a label column, or a value of a column of behaviours, found no column "
            f"{missing[0]!r} and no such values{did_you_mean(missing[0], [*named])}; "
            "fix the task, or name the column of behaviours",
        )
    wanted = None if tasks is None else [named[task] for task in tasks]
    return _draft_of_labels(draft, columns, labels, amounts, place, wanted)


def _check_times(time: Column, source: Table, place: str) -> None:
    """Refuse a log of one time; a sample may be the first rows of a sorted one."""
    if time.distinct == 1 and only_row(source.aggregate(n=source[time.name].nunique()))["n"] == 1:
        raise DataError(
            f"{place}, column {time.name!r}",
            "rows must have different times, or nothing comes before anything, found one in all rows; "
            "name the column that says when a row happened",
        )


def _nodes(ids: Sequence[Column], given: Mapping[str, Column], timed: Table) -> Nodes:
    """Choose user and item among the columns that can be ids, by their relations if there is a choice."""
    words = f"{USER}|{ITEM}"
    keys = [
        column
        for column in ids
        if column in given.values()
        or not (
            column.measure
            or column.calendar
            or (column.is_a(POSITION) and not column.name.lower().endswith("id"))
            or (column.few and not column.named(words))
        )
    ]
    keys = sorted(keys, key=lambda column: (column.named(words), column.distinct), reverse=True)[:MAX_KEYS]
    names = [column.name for column in keys]
    pairs = [*combinations(names, 2), *((name, MOMENT) for name in names)] if len(keys) > 2 else []
    return choose_nodes(sorted(keys, key=ids.index), given, Relations.of(timed, pairs))


def _without_nodes(columns: list[Column], place: str) -> DataError:
    """Return the error of a log without users or items."""
    same = [c.name for c in columns if c.kind in ("integer", "string") and c.distinct == 1]
    more = f"{', '.join(same)} hold a single value, so add more rows, or " if same else ""
    return DataError(
        place,
        "a log needs a user and an item, found no column like them among "
        f"{', '.join(column.name for column in columns)}; "
        f"{more}name them yourself; ids are columns of whole numbers or texts, not an index",
    )


def _relate(timed: Table, user: Column, item: Column, few: Sequence[Column]) -> Relations:
    """Measure what user, item and hour decide, and how often users come back to items and moments."""
    tried = {column.name for column in few if not (column.descriptive or column.measure)}
    pairs = [(node, name) for name in sorted(tried)[:MAX_KEYS] for node in (user.name, item.name, HOUR)]
    return Relations.of(timed, [*pairs, (user.name, item.name), (user.name, MOMENT)])


def _explained(column: Column, user: Column, item: Column, relations: Relations) -> bool:
    """Return whether a column of few values is no behaviour: by its name, or because user, item or hour
    decide it."""
    by_name = column.descriptive or column.measure or column.is_a(POSITION)
    return by_name or any(relations.decides(node, column.name) for node in (user.name, item.name, HOUR))


def _follows(timed: Table, unknown: Sequence[Column], user: Column, item: Column) -> str | None:
    """Return the column whose rarer values follow its commoner ones on the same user and item."""
    for column in sorted(unknown, key=lambda column: not column.named(BEHAVIOR))[:MAX_KEYS]:
        if commoner_first(*orders(timed, column.name, user.name, item.name)):
            return column.name
    return None


def _counts(table: Table, column: str) -> dict[str, int]:
    """Return the rows of each value, the commonest first."""
    values = table.filter(table[column].notnull()).group_by(value=table[column].cast("string"))
    counted = values.aggregate(n=ibis._.count()).order_by([ibis.desc("n"), "value"]).to_pyarrow()
    return {row["value"]: row["n"] for row in counted.to_pylist()}


def _amounts(columns: Sequence[Column]) -> list[Column]:
    """Return what can be a regression: a rating, otherwise how long something was played or watched."""
    ratings = sorted((c for c in columns if c.rating), key=lambda c: not c.is_a("rating|overall|star"))
    return ratings or [c for c in columns if c.is_number and c.named(WATCHED) and c.distinct > 2]


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
    few = [column for column in few if not column.descriptive]
    by_values = [
        column
        for column in few
        if column.kind == "string" and None not in (strength(str(column.low)), strength(str(column.high)))
    ]
    by_values.sort(key=lambda column: not column.named(BEHAVIOR))
    labelled = any(strength(column.name) is not None for column in labels)
    told = [column for column in few if column.named(BEHAVIOR)]  # by more than `type`, where rows can tell
    told = [c for c in told if c.distinct == 1 or c.filled < ENOUGH or c.named(BEHAVIOR.replace("|type", ""))]
    by_name = [] if labelled else told
    return next((column.name for column in [*by_values, *by_name]), None)


def _draft_of_rows(draft: Draft, told: Sequence[Column], unsure: Sequence[Column], task: str) -> Draft:
    """Make one task that every row does; name the columns that say no more, and those that may."""
    said = [f"`{column.name}`" for column in told if not column.measure]
    about = "No behaviours but properties, of users, items, clicks or times"
    return replace(
        draft,
        tasks=_names([task]),
        notes=[*draft.notes, *([f"{about}: {', '.join(said)}."] if said else [])],
        others=draft.others | {"behavior": [column.name for column in unsure]},
    )


def _draft_of_behaviors(draft: Draft, timed: Table, source: Table) -> Draft:
    """Make tasks of the frequent behaviours, weakest first."""
    keys = draft.columns
    counts = _counts(source, keys["behavior"])
    often = {value: n for value, n in counts.items() if n >= RARE * sum(counts.values())}
    undone = [value for value in often if takes_back(value)]
    undone = undone if len(undone) < len(often) else []
    kept, reasons = [value for value in often if value not in undone][:MOST_TASKS], dict[str, str]()
    if all(strength(value) is not None for value in kept):
        kept.sort(key=lambda value: strength(value) or 0)
    else:
        met, _ = orders(timed, keys["behavior"], keys["user"], keys["item"])
        kept = from_weak_to_strong(met, {value: counts[value] for value in kept})
        reasons = _reasons(kept, counts, met)
    names = _names(kept)
    back = ", ".join(f"{value} ({counts[value]:,} rows)" for value in undone)
    note = f"Left out, because it takes back what was done: {back}."
    return replace(
        draft,
        tasks=names,
        notes=[*draft.notes, *([note] if undone else [])],
        rare={value: n for value, n in counts.items() if value not in (*kept, *undone)},
        reasons={name: reasons[value] for name, value in names.items() if value in reasons},
    )


def _reasons(
    values: Sequence[str], counts: Mapping[str, int], met: Mapping[tuple[str, str], Order]
) -> dict[str, str]:
    """Return why codes are in their order."""
    reasons = {}
    for before, value in zip((None, *values), values, strict=False):
        order = None if before is None else met.get((before, value))
        if before is None:
            why = "; the order is a guess, by what follows what and by rarity"
        elif order is not None and order.clear > 0:
            why = f", after {before} on {order.before:,} pairs of user and item, before it on {order.after:,}"
        else:
            why = (
                "; nothing says clearly which comes first"
                if counts[value] > counts[before]
                else f", rarer than {before}"
            )
        reasons[value] = f"{counts[value]:,} rows{why}"
    return reasons


def _draft_of_labels(
    draft: Draft,
    columns: list[Column],
    labels: list[Column],
    amounts: list[Column],
    place: str,
    wanted: Sequence[Column] | None,
) -> Draft:
    """Make tasks of the labels, weakest first, and features of what is left."""
    keys = draft.columns
    free = [column for column in columns if column.name not in keys.values() and column not in (wanted or ())]
    best_of = {
        "position": best([column for column in free if column.kind == "integer"], POSITION),
        "weight": best([column for column in free if column.kind == "float"], WEIGHT),
        "uniform": best([column for column in free if column.binary], UNIFORM),
        "request": best([c for c in free if c.id and c.name.lower().endswith("id")], REQUEST),
    }
    roles = {role: column for role, column in best_of.items() if column is not None}
    labels = [column for column in labels if column != roles.get("uniform")]
    named = [column for column in labels if _done(column)] or labels
    named = [column for column in named if column.name not in keys.values()]
    follow = [c for c in free if c.is_number and c.named(AMOUNT) and not c.binary and c.distinct > 2]
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
    together = draft.shape == "orders" or "request" in roles
    ratings = [column.name for column in tasks if column.rating]
    more = [
        f"`{c.name}` could be a task too, of the kind regression."
        for c in amounts
        if c.rating and c not in tasks
    ]
    return replace(
        draft,
        columns=keys | {role: column.name for role, column in roles.items()},
        events=False,
        shape="ratings" if ratings else "lists" if together else "exposures",
        notes=draft.notes + more,
        tasks=names,
        amounts=[name for name, column in zip(names, tasks, strict=True) if not column.binary],
        rare=rare,
        context={
            column.name: {"float": "numeric", "list": "multi"}.get(column.kind, "categorical")
            for column in free
            if column not in (*named, *tasks, *follow, *amounts, *roles.values())
            and not (column.unique or column.rating)
            and column.kind not in ("time", "vector", "other")
            and not column.moment
        },
    )


def _done(label: Column) -> bool:
    """Return whether a label is named like something done."""
    named = strength(label.name) is not None or label.named("label|target|y")
    return named and not label.descriptive


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
