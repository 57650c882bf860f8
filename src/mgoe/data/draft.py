"""Writing a guessed configuration as a person would: short, with comments where something needs
explaining."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import yaml

from mgoe.config import DataSettings, RunSettings, TaskSettings
from mgoe.data.columns import Table
from mgoe.data.rules import RATIO, RETURNING, Chosen, Scan, choose, rows_that_happen, share_that_returns
from mgoe.data.times import bucket_of, finer_than_buckets, moment_of

_WIDTH = 44  # column at which comments start
HISTORY = {
    True: ("moment", "a row reads what a service would know, all that happened before it"),
    False: ("bucket", "a row reads all before its bucket, as most buckets have rows of one time alone"),
}
"""What a row reads, and why, by whether times are finer than buckets."""
NO_RETURN = {
    True: ("moment", "users do not return, so a row knows of its user only what came just before it"),
    False: ("bucket", "users do not return, and without times of day a row knows nothing of its user"),
}
"""The same of a log whose users do not return, such as one of anonymous sessions."""


NOBODY = "no column tells users apart, so items are ranked by context and by what was done on them alone"
"""Why no user is read of a log that has none."""

LINEAR, TREES = "logistic+mgoe", "lightgbm+moment"
"""What a sceptic expects beside networks: one weight per input, and boosted trees on counts."""
BIASES = "rates", "constant"
"""What a model of ratings should beat."""
QUICK = 200_000
"""Rows of a log up to which each of both takes about a minute of a core at most. On 1,000,272 simulated
rows they took 170 and 336 seconds of one, on two real logs of 70,000 at most 18 and 11."""
SHAPES = {
    "users": "returning users, each row something that a user did",
    "sessions": "sessions, whose users do not return",
    "lists": "exposures in lists, rows of one user and time shown together, with labels of what was done",
    "exposures": "exposures, rows of what was shown with labels of what was done",
    "ratings": "ratings, each row the number that a user gave an item",
    "orders": "orders, rows of one user and time bought together",
    "plays": "repeats, such as plays or groceries, of the same items by the same users",
}
"""What kind of log it is, in words."""


@dataclass(frozen=True)
class Draft:
    """What was guessed.

    Args:
        columns: Column of each setting of `data` that has one: `user`, `item`, `time`; of an event log
            `behavior`, if it says what happened; of an exposure log `position`, `weight`, `uniform` and
            `request`.
        events: Whether it is an event log.
        tasks: Name to its behaviour or label column, weakest first.
        amounts: Tasks among these that are regressions.
        rare: Behaviours that do not become tasks, with their rows.
        context: Other columns of an exposure log, which may be features, and the kind of feature.
        vectors: Columns of vectors, which belong into a side table.
        shape: What kind of log it is, a key of `SHAPES`; empty for events whose users may return or not.
        notes: What a person should know before the first run, a sentence each.
        others: Columns that could be the user or the item as well, by the setting.
        where: A condition on rows that a person may want.
        reasons: Comments on tasks.
    """

    columns: dict[str, str]
    events: bool = False
    tasks: dict[str, str] = field(default_factory=dict)
    amounts: list[str] = field(default_factory=list)
    rare: dict[str, int] = field(default_factory=dict)
    context: dict[str, str] = field(default_factory=dict)
    vectors: list[str] = field(default_factory=list)
    shape: str = ""
    notes: list[str] = field(default_factory=list)
    others: dict[str, list[str]] = field(default_factory=dict)
    where: str = ""
    reasons: dict[str, str] = field(default_factory=dict)


def write_draft(
    paths: Sequence[str], draft: Draft, source: Table, place: str, sides: Mapping[str, tuple[Any, ...]]
) -> str:
    """Return the configuration as YAML.

    Args:
        paths: The log's paths.
        draft: What was guessed.
        source: The log.
        place: What the log is, for messages.
        sides: What was guessed of the side tables of `user` and `item`.
    """
    kind = "behaviors" if draft.events else "label"
    unchecked = RunSettings.model_construct(
        data=DataSettings.model_validate(
            {"log": list(paths)}
            | {key: draft.columns.get(key) for key in ("user", "item", "time", "behavior")}
        ),
        tasks=[TaskSettings.model_validate({"name": name, kind: one}) for name, one in draft.tasks.items()],
    )
    scan = Scan.of(source, unchecked, place, now=time.time())
    chosen, happened = choose(scan, may_start=True), rows_that_happen(source, unchecked, place)
    timed = happened.mutate(bucket=bucket_of(happened.time, scan.bucket))
    reads = finer_than_buckets(timed), share_that_returns(timed, scan)
    lines = [
        ("# A first guess, made by `mgoe init` from names, types and values. Read it through, then:", ""),
        ("#   mgoe run THIS.yaml --out runs/first", ""),
        (f"# Shape of the log: {SHAPES[draft.shape or ('users', 'sessions')[reads[1] < RETURNING]]}.", ""),
        *((f"# {note}", "") for note in draft.notes),
        *_data_lines(paths, draft, scan, reads, chosen),
        *(line for node, side in sides.items() for line in _side_lines(node, *side)),
        ("tasks:", "weakest to strongest"),
        *(
            (f"  - {_task(draft, name, value)}", draft.reasons.get(name, ""))
            for name, value in draft.tasks.items()
        ),
    ]
    if not draft.events and draft.shape != "ratings" and reads[0]:
        lines.append(
            (
                "  # delay: 5m",
                f"labels count as history from the end of their {scan.bucket} bucket; if your service knows "
                "those of a task sooner, such as 5 minutes after the exposure, write this into the task",
            )
        )
    if draft.rare:
        shown = ", ".join(f"{value} ({n:,})" for value, n in list(draft.rare.items())[:8])
        lines.append((f"  # left out as too rare: {shown}", ""))
    lines += _section("split", chosen)
    if draft.events:
        lines += [("negatives:", ""), (f"  ratio: {RATIO}", "for each positive")]
    lines += [
        *(_section("training", chosen) or [("training:", "")]),
        (
            "  refit: anew",
            "once validation has chosen, weights learn its rows too, and for the bundle those of test",
        ),
        models_line(scan.rows, draft.shape == "ratings", "user" in draft.columns),
        ("seeds: [0]", ""),
    ]
    return "".join(f"{text:<{_WIDTH}}  # {comment}\n" if comment else f"{text}\n" for text, comment in lines)


def models_line(rows: int, ratings: bool = False, users: bool = True) -> tuple[str, str]:
    """Return the line of the models of a log with so many rows, and why these."""
    network, same, *simple = RunSettings.model_fields["models"].default
    served, rest = "the first is served unless validation puts another ahead", "the others learn nothing"
    if ratings:
        simple, rest = [*BIASES], "rates adds up the means of user and item"
    if not users:
        simple = [*(name for name in simple if name != "history"), "constant"]
    if rows <= QUICK:
        trees = [TREES] if find_spec("lightgbm") else []
        return (
            f"models: [{', '.join([network, same, LINEAR, *trees, *simple])}]",
            f"{served}; {same} and {LINEAR} read the same, {'trees read counts, ' * len(trees)}{rest}",
        )
    return (
        f"models: [{', '.join([network, same, *simple])}]",
        f"{served}; {same} reads the same, {rest}; {LINEAR} and {TREES} would take minutes on {rows:,} rows",
    )


def _data_lines(
    paths: Sequence[str],
    draft: Draft,
    scan: Scan,
    reads: tuple[bool, float],
    chosen: Mapping[str, Chosen],
) -> list[tuple[str, str]]:
    columns, (finer, share) = draft.columns, reads
    rare = share < RETURNING
    returning = f", {share:.1%} of whom have rows on both sides of a cut: users do not return" if rare else ""
    first, last = (moment_of(int(scan.buckets[place]), scan.bucket) for place in (0, -1))
    lines = [
        ("data:", ""),
        *_settings(
            log=(paths[0] if len(paths) == 1 else list(paths), f"{scan.rows:,} rows, {first} to {last}"),
            user=(columns.get("user"), f"{scan.users:,} users{returning}"),
        ),
        *([] if "user" in columns else [("  user: null", NOBODY)]),
        *_others(draft, "user"),
        *_settings(item=(columns["item"], f"{scan.items:,} items")),
        *_others(draft, "item"),
        *_settings(
            time=(columns["time"], ""),
            behavior=(columns.get("behavior"), "what happened; negatives are sampled from the same bucket"),
            bucket=(scan.bucket, "of time; windows end with one" + (f"; {scan.pace}" if scan.pace else "")),
            history=(NO_RETURN if rare else HISTORY)[finer],
            missing_ids=(
                "drop" if scan.without_id else None,
                f"{scan.without_id:,} rows without a user or an item are left out; `refuse` stops there",
            ),
        ),
    ]
    if draft.where:
        lines.append((f"  # where: {_yaml(draft.where)}", "of the rows, these alone"))
    if draft.events and "behavior" not in columns:
        lines.append(
            ("  behavior: null", "every row does the one task; negatives are sampled from the same bucket")
        )
        lines += _others(draft, "behavior")
    lines += [
        (f"  {key.removeprefix('data.')}: {_yaml(one.value)}", one.reason)
        for key, one in chosen.items()
        if key in ("data.start", "data.end")
    ]
    lines += _settings(
        request=(
            columns.get("request"),
            "for which it was shown: rows of one request, user and item are one exposure",
        ),
        position=(columns.get("position"), "where it was shown, which no prediction reads"),
        weight=(columns.get("weight"), "of a row in the loss"),
        uniform=(
            columns.get("uniform"),
            "shown uniformly at random: test rows that are measured on their own too",
        ),
    )
    if draft.context:
        lines += [
            (
                "  # context:",
                "features of an exposure: keep what is known when it is shown, never what follows from it",
            ),
            *((f"  #   - {{name: {_yaml(name)}, kind: {kind}}}", "") for name, kind in draft.context.items()),
        ]
    if draft.vectors:
        lines += [
            ("  # items:", "vectors are features of items or users, of which a table holds one each"),
            (f"  #   path: items.parquet\n  #   id: {_yaml(columns['item'])}\n  #   features:", ""),
            *((f"  #     - {{name: {_yaml(name)}, kind: vector}}", "") for name in draft.vectors),
        ]
    return lines


def _side_lines(
    node: str, table: Mapping[str, Any], share: float, doubts: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Return the lines of a side table; one of which nothing would be read is commented out."""
    features, name = table["features"], table.get("name")
    none = "" if len(doubts) < len(features) else "# "
    off = "" if name else none
    return [
        (f"  {off}{node}s:", f"a table that holds {share:.0%} of the log's {node}s"),
        *((f"  {off}  {key}: {_yaml(table[key])}", "") for key in ("path", "id", "name") if key in table),
        (f"  {none}  features:", ""),
        *(
            (f"      {'# ' * (n in doubts)}- {{name: {_yaml(n)}, kind: {kind}}}", doubts.get(n, ""))
            for n, kind in (one.values() for one in features)
        ),
    ]


def _section(name: str, chosen: Mapping[str, Chosen]) -> list[tuple[str, str]]:
    """Return the lines of a section of chosen settings, none without any."""
    found = {key.partition(".")[2]: one for key, one in chosen.items() if key.startswith(f"{name}.")}
    lines = [(f"  {key}: {_yaml(one.value)}", one.reason) for key, one in found.items()]
    return [(f"{name}:", ""), *lines] if lines else []


def _others(draft: Draft, node: str) -> list[tuple[str, str]]:
    """Return a line, commented out, for each column that a setting could name as well."""
    why = f"could be the {node} as well: keep one of the lines"
    if node == "behavior":
        why = "if it says what happened; no value of it clearly follows another on the same user and item"
    return [(f"  # {node}: {_yaml(name)}", why) for name in draft.others.get(node, ())]


def _settings(**named: tuple[object, str]) -> list[tuple[str, str]]:
    """Return the line and the comment of each setting that has a value."""
    return [
        (f"  {key}: {_yaml(value)}", comment) for key, (value, comment) in named.items() if value is not None
    ]


def _task(draft: Draft, name: str, value: str) -> str:
    if draft.events:
        return _yaml(name) if name == value else f"{{name: {_yaml(name)}, behaviors: [{_yaml(value)}]}}"
    kind = ", kind: regression" if name in draft.amounts else ""
    if draft.shape == "ratings":  # a rating is known once it is given
        kind += f", known_at: {_yaml(draft.columns['time'])}"
    return f"{{name: {_yaml(name)}, label: {_yaml(value)}{kind}}}"


def _yaml(value: object) -> str:
    """Return a value as it is written inside a line of YAML."""
    return yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=1_000_000).strip()[1:-1]
