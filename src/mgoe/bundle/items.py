"""Items that a bundle learns of after it was written: registered with features and names, or withdrawn.

In a log of a service their records are between the events, so they are as durable. A registered item that the
graph does not hold has an index after those that it holds.

Axes: `B` items.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mgoe._util.tables import Frame
from mgoe.bundle.ids import LONGEST_ID, canonical_id, read_id, shown
from mgoe.bundle.values import check_fields, read_features
from mgoe.config import DataSettings
from mgoe.data import Encoders, as_table
from mgoe.errors import DamagedLogError, EventError

FIELDS = ("item", "features", "name", "withdrawn")
MARK = b"{"
"""How a record of an item begins, and no record of an event."""
WITHDRAWN = "withdrawn.parquet"
"""File of a bundle with the ids of withdrawn items; there is none where none are."""
FEATURES = {
    "categorical": pa.string(),
    "multi": pa.list_(pa.string()),
    "numeric": pa.float64(),
    "vector": pa.list_(pa.float64()),
}
"""Arrow type of a feature of each kind, as a client sends it."""


@dataclass(frozen=True)
class Item:
    """What became known of an item.

    Attributes:
        item: Its id.
        features: Texts, numbers and lists of texts by name; None if it was not registered.
        name: What people call it.
        withdrawn: Whether it is never recommended again.

    Example:
        >>> Item.decode(Item(7, {"color": "red"}).encode()).features
        {'color': 'red'}
    """

    item: int | str
    features: Mapping[str, Any] | None = None
    name: str | None = None
    withdrawn: bool = False

    def encode(self) -> bytes:
        """Return the item as bytes of a log."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read what `encode` returned.

        Raises:
            DamagedLogError: The bytes are not an item.
        """
        try:
            return cls(**json.loads(payload))
        except (ValueError, TypeError) as error:
            rule = f"the log is damaged: a record must hold an item, found {payload[:40]!r} ({error})"
            raise DamagedLogError("events", rule) from None


class NewItems(NamedTuple):
    """Items as a bundle reads them, each once.

    Attributes:
        ids: Ids as the vocabulary holds them. B of them.
        encoded: Features, see `SideFeatures.encode`; of an item that has none, they are unknown.
        names: What people call them; None where they have no name.
        withdrawn: Which are never recommended again. Shape (B,).
    """

    ids: pa.Array
    encoded: Mapping[str, NDArray[Any]]
    names: Sequence[str | None]
    withdrawn: NDArray[np.bool_]


def read_item(raw: Mapping[str, Any], encoders: Encoders) -> Item:
    """Check an item that is registered, or withdrawn, or both.

    Args:
        raw: `item`, and optionally `features` (values by name), `name` and `withdrawn` (true or false).
        encoders: Of the bundle, whose features of items may be named.

    Raises:
        EventError: A field is missing, unknown, or breaks its rule.
    """
    check_fields(raw, FIELDS, "an item")
    id, name = read_id(raw.get("item"), encoders.items.type, "item"), raw.get("name")
    if not isinstance(withdrawn := raw.get("withdrawn", False), bool):
        raise EventError("withdrawn", f"must be true or false, found {shown(withdrawn)}")
    given, known = raw.get("features"), {one.name: one for one in encoders.item_side.encoders.features}
    features = read_features({} if given is None else given, known, "features", "feature of items")
    for vector, space in encoders.item_side.encoders.spaces.items():
        numbers = features.get(vector)
        if isinstance(numbers, list) and (len(numbers) != space.width or not any(numbers)):
            rule = f"a vector has {space.width} numbers that are not all 0, found {len(numbers)}"
            raise EventError(f"features.{vector}", f"{rule}; encode it as those of the training")
    if name is not None and not (isinstance(name, str) and 0 < len(name) <= LONGEST_ID):
        raise EventError("name", f"must be a text of 1 to {LONGEST_ID} characters, found {shown(name)}")
    registers = given is not None or name is not None or not withdrawn
    return Item(id, features if registers else None, name, withdrawn)


def read_items(rows: Frame, data: DataSettings, encoders: Encoders) -> list[Item]:
    """Read a frame with columns of a side table of items.

    Args:
        rows: The frame. The id column is called as in that table, or as in the log if there is no table.
        data: Settings of log and table.
        encoders: Of the bundle.

    Raises:
        DataError: It is no frame.
        EventError: A column is missing or unknown, or a value breaks its rule.
    """
    id, name = (data.item, None) if data.items is None else (data.items.id, data.items.name)
    found = []
    for row in as_table(rows, "items").to_pyarrow().to_pylist():
        given, called = row.pop(id, None), row.pop(name, None)
        raw = {"item": given, "name": None if called is None else str(called), "features": row}
        found.append(read_item(raw, encoders))
    return found


def encoded_items(records: Sequence[Item], encoders: Encoders) -> dict[str, NDArray[Any]]:
    """Return the features of records as a bundle reads them, see `SideFeatures.encode`. B rows each.

    Features that the bundle does not have, or that are of another kind there, are left out.
    """
    columns = {}
    for feature in encoders.item_side.encoders.features:
        given = [(one.features or {}).get(feature.name) for one in records]
        width = encoders.item_side.encoders.spaces[feature.name].width if feature.kind == "vector" else None
        fitting = [value if _fits(value, feature.kind, width) else None for value in given]
        columns[feature.name] = pa.array(fitting, FEATURES[feature.kind])
    return encoders.item_side.encode(columns, len(records))


def _fits(value: Any, kind: str, width: int | None) -> bool:
    """Return whether a value of a record, which another bundle may have read, is of a kind."""
    if kind in ("categorical", "numeric"):
        return isinstance(value, str if kind == "categorical" else float)
    if not isinstance(value, list) or len(value) != (width or len(value)):
        return False
    return all(isinstance(one, float if kind == "vector" else str) for one in value)


def new_items(records: Sequence[Item], encoders: Encoders) -> NewItems:
    """Return the items of some records as a bundle reads them. What was registered first counts.

    Args:
        records: In the order of the log. Those with ids that cannot be the bundle's are left out.
        encoders: Of the bundle.
    """
    known: dict[int | str, Item] = {}
    for one in records:
        if (id := canonical_id(one.item, encoders.items.type)) is not None:
            held = known.get(id, Item(id))
            first = one if held.features is None else held
            known[id] = replace(first, item=id, withdrawn=held.withdrawn or one.withdrawn)
    return NewItems(
        pa.array([*known], encoders.items.type),
        encoded_items([*known.values()], encoders),
        [one.name for one in known.values()],
        np.array([one.withdrawn for one in known.values()], np.bool_),
    )


def sorted_out(
    items: Mapping[int, Item], indices: NDArray[np.int64], encoders: Encoders
) -> tuple[dict[int, EventError], list[Item]]:
    """Compare items with what is known.

    Args:
        items: By number. B of them.
        indices: Their indices. Shape (B,).
        encoders: Of the bundle.

    Returns:
        What is wrong with some of them, by number; and those of the others that say something new.
    """
    side, wrong, new = encoders.item_side, dict[int, EventError](), list[Item]()
    differ = side.differ(indices, encoded_items([*items.values()], encoders)).tolist()
    known = zip(
        indices.tolist(), side.are_known(indices).tolist(), differ, side.names_of(indices), strict=True
    )
    for (number, one), (index, has_features, differs, name) in zip(items.items(), known, strict=True):
        renamed = None not in (one.name, name) and one.name != name
        if one.features is None and index < 0:
            rule = f"{one.item!r} is not known; register it first, or leave it out"
            wrong[number] = EventError("item", rule)
        elif one.features is not None and ((has_features and differs) or renamed):
            rule = f"{one.item!r} has other features or another name already, which stay; leave it out"
            wrong[number] = EventError("item", rule)
        elif index < 0 or differs or one.withdrawn:
            new.append(one)
    return wrong, new


def checked_items(records: Sequence[Item], indices: NDArray[np.int64], encoders: Encoders) -> NewItems:
    """Return items as a bundle reads them.

    Raises:
        EventError: One is wrong, see `sorted_out`, or is named twice.
    """
    wrong, new = sorted_out(dict(enumerate(records)), indices, encoders)[0], new_items(records, encoders)
    if wrong or len(new.ids) < len(records):
        twice = EventError("items", "each must be named once; keep one row of it")
        raise next(iter(wrong.values()), twice)
    return new
