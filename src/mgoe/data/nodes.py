"""Which columns of an unknown log are its users, its items and its orders, by names and by relations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mgoe.data.measured import ITEM, SECOND, USER, Column
from mgoe.data.relations import TIME, Relations

WORDS = r"name|title|description|desc|text|label"
"""Names of columns that say in words what another one has an id of."""


@dataclass(frozen=True)
class Nodes:
    """Columns of the nodes.

    Args:
        user, item: Columns of users and items, None where no column can be.
        order: The column of orders, each of one user at one time.
        others: Columns that could be the user or the item as well, by the setting.
    """

    user: Column | None
    item: Column | None
    order: Column | None = None
    others: dict[str, list[Column]] = field(default_factory=dict)


def choose_nodes(keys: Sequence[Column], known: Mapping[str, Column], relations: Relations) -> Nodes:
    """Choose the user, then the item, then the order.

    Names come first. Among columns of equally good names, or without any, an item is what many users share: a
    column that decides the user is an order or a session, one that the user or a finer item decides is a
    property of it.

    Args:
        keys: Columns that can be ids, in the order of the log.
        known: Columns that a person named.
        relations: Of all pairs of keys, and of each key and the time.
    """
    user, item = known.get("user"), known.get("item")
    user = user or best(_users(keys, item, relations), USER)
    fitting = _items(keys, user, item, relations)
    if item is None:
        named = [c for c in keys if c != user and (c.is_a(ITEM) or not c.few)]
        item = best(named, ITEM, fitting)
        if item is not None and fitting and item not in fitting and not _first_choice(item, ITEM):
            item = None
    if user is None or item is None:  # the columns with most values, the user written before the item
        free = [column for column in fitting if column != item and not column.few and column.distinct > 2]
        if item is not None:
            free = [column for column in free if not relations.decides(item.name, column.name)]
        free.sort(key=lambda column: (not column.is_a(WORDS), column.distinct), reverse=True)
        left = iter(sorted(free[: 2 - bool(user) - bool(item)], key=keys.index))
        user, item = user or next(left, None), item or next(left, None)
    if user is None or item is None:
        return Nodes(user, item)
    orders = [
        column
        for column in keys
        if column not in (user, item)
        and relations.finer(column.name, user.name)
        and relations.decides(column.name, TIME)
    ]
    return Nodes(user, item, next(iter(orders), None), _others(keys, user, item, fitting, known, relations))


def _users(keys: Sequence[Column], item: Column | None, relations: Relations) -> list[Column]:
    """Return the columns named like users: not one with a handful of values by the name of a property, nor
    ids of orders beside the users who made them."""
    named = [c for c in keys if c != item and c.named(USER) and (c.is_a(USER) or not c.few)]
    sure = [c for c in named if c.is_a(USER)]
    made = [
        c
        for c in named
        if not relations.decides(c.name, TIME) or not any(relations.finer(c.name, d.name) for d in sure)
    ]
    most = max((c.filled for c in keys), default=0)
    return [c for c in made if 2 * c.filled >= most] or made


def _items(
    keys: Sequence[Column], user: Column | None, item: Column | None, relations: Relations
) -> list[Column]:
    """Return the columns whose values repeat, and which neither decide the user nor are decided by it or by a
    finer column that fits."""
    fitting = []
    for column in keys:
        owners = [user] if user is not None else keys if relations.decides(column.name, TIME) else []
        if (
            column not in (user, item)
            and not column.unique
            and (not column.few or column.is_a(ITEM))
            and not any(relations.decides(column.name, owner.name) for owner in owners if owner != column)
            and not (user is not None and relations.decides(user.name, column.name))
        ):
            fitting.append(column)
    return [
        c
        for c in fitting
        if _first_choice(c, ITEM) or not any(relations.finer(other.name, c.name) for other in fitting)
    ]


def _others(
    keys: Sequence[Column],
    user: Column,
    item: Column,
    fitting: Sequence[Column],
    known: Mapping[str, Column],
    relations: Relations,
) -> dict[str, list[Column]]:
    """Return the columns that could be the user or the item just as well, by the setting."""

    def apart(one: Column, other: Column) -> bool:
        either = relations.decides(one.name, other.name) or relations.decides(other.name, one.name)
        return one != other and not either

    sure = _first_choice(item, ITEM)
    items = [
        c
        for c in fitting
        if c not in (user, item)
        and not c.few
        and apart(c, item)
        and not c.named(USER)
        and _first_choice(c, ITEM) == sure
        and c.named(ITEM) >= item.named(ITEM)
    ]
    users = [c for c in keys if c not in (user, item) and _first_choice(c, USER) and apart(c, user)]
    found = {"user": users if _first_choice(user, USER) else [], "item": items}
    return {node: columns for node, columns in found.items() if columns and node not in known}


def _first_choice(column: Column, words: str) -> bool:
    return column.is_a(words) and not column.named(SECOND)


def best(columns: Sequence[Column], words: str, fitting: Sequence[Column] = ()) -> Column | None:
    """Return the column named like one of the words: a first choice, then one of those that fit, then
    `..._id`, then the one with most values."""

    def rank(column: Column) -> tuple[bool, bool, bool, int]:
        return (
            _first_choice(column, words),
            column in fitting,
            column.name.lower().endswith("id"),
            column.distinct,
        )

    return max((column for column in columns if column.named(words)), key=rank, default=None)
