"""Groups of exposures and their counts: what was shown to a node, and what of it was labelled and done.

A group counts exposures by one or two axes: nodes, macro nodes, or categories of side tables and of the
context. Its cells are exact and sparse. Models read rates that are derived from them: log-odds that are
shrunk towards those of all cells, by a prior that is fitted to the snapshot.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mgoe.config import RateSettings, did_you_mean, seconds
from mgoe.errors import ConfigError
from mgoe.graph.pair_rows import SIDES

SECOND = 1_000_000
LEAST_EVIDENCE = 0.002
MOST_CATEGORIES, MOST_CONTEXTS = 4, 2


@dataclass(frozen=True)
class Axis:
    """What exposures are counted by.

    Attributes:
        name: As in the settings.
        side: The side that it follows from: `user`, `item` or `context`.
        kind: `node` itself, its `macro` node, a `category`, or the shown `position`.
        size: Number of categories, the unknown one included; 0 where it depends on the snapshot.
        resolution: Of a macro node.
        several: Whether an exposure may have any number of its values: a list in the context.
    """

    name: str
    side: Literal["user", "item", "context"]
    kind: Literal["node", "macro", "category", "position"]
    size: int = 0
    resolution: int = 0
    several: bool = False


@dataclass(frozen=True)
class RateGroup:
    """A group of exposures that is counted.

    Attributes:
        axes: One or two; rows of the cells are by the first.
        last: Buckets that count, of which the last is the latest with an exposure; None for all history.
    """

    axes: tuple[Axis, ...]
    last: int | None = None

    @property
    def name(self) -> str:
        """The axes in words, such as `user x items.tag, last 3`."""
        name = " x ".join(axis.name for axis in self.axes)
        return name if self.last is None else f"{name}, last {self.last}"


class RateTable(NamedTuple):
    """The cells of one group as of a snapshot, by the first axis, then the second, ascending.

    The arrays of cells are those of all groups of the snapshot; `indptr` says which are this group's.

    Attributes:
        indptr: Where the cells of each value of the first axis start. Shape (n + 1,).
        other: Value of the second axis; 0 in a group of one axis. Shape (E,).
        counts: Exposures; then labels of each task, then those above 0. Shape (E, 1 + 2T).
        values: Sums of regression labels in millionths. Shape (E, regressions).
        prior: Per task: the rate (or mean) of all cells, and its weight in labels. Shape (T, 2).
    """

    indptr: NDArray[np.int64]
    other: NDArray[np.int32]
    counts: NDArray[np.unsignedinteger]
    values: NDArray[np.int64]
    prior: NDArray[np.float64]

    @classmethod
    def read(cls, array: Callable[[str], NDArray]) -> list[Self]:
        """Read the tables of all groups from the arrays of a snapshot, by their names."""
        first, indptr, prior = (array(f"rates.{name}") for name in ("starts", "indptr", "prior"))
        other, counts, values = (array(f"rates.{name}") for name in ("other", "counts", "values"))
        return [
            cls(indptr[first[g] : first[g + 1]], other, counts, values, prior[g])
            for g in range(len(first) - 1)
        ]


@dataclass(frozen=True)
class Rates:
    """The groups of a graph, and what they read of a snapshot.

    Attributes:
        groups: In the order of a model's columns.
        tables: One per group.
        adjusted: Adjusted rates of each value of the axis, see `mgoe.graph.adjusted`; None for groups
            without. Shape (n, T).
        categories: Categories of each node by the name of the axis, -1 after the last. Shape (n, L).
        regressions: Whether each task is a regression. Shape (T,).
    """

    groups: tuple[RateGroup, ...]
    tables: tuple[RateTable, ...]
    adjusted: tuple[NDArray[np.float32] | None, ...]
    categories: Mapping[str, NDArray[np.int32]]
    regressions: NDArray[np.bool_]


def is_live(group: RateGroup, regressions: NDArray[np.bool_]) -> bool:
    """Return whether a group moves with exposures: that of items over all history, alone or with the
    context. Those of users move likewise where every task is a regression, and else wait for the next
    graph."""
    nodes = [axis for axis in group.axes if axis.side != "context"]
    moving = ("item", "user") if regressions.all() else ("item",)
    return len(nodes) == 1 and nodes[0].kind == "node" and nodes[0].side in moving and group.last is None


def parse_groups(
    wanted: Sequence[tuple[Sequence[str], int | None]],
    sizes: Mapping[str, int],
    several: Container[str],
    resolutions: int,
    dense: int,
) -> tuple[RateGroup, ...]:
    """Return groups from the names of their axes and the buckets that count.

    Args:
        wanted: The groups.
        sizes: Number of categories of each given axis, the unknown one included.
        several: Axes of the context that are lists.
        resolutions: Of the graph.
        dense: The resolution that a macro node without a number is of.

    Raises:
        ConfigError: An axis is unknown, or two groups are the same.
    """
    axes = _axes(sizes, several, resolutions, dense)
    groups: list[RateGroup] = []
    for names, last in wanted:
        for name in names:
            if name not in axes:
                raise ConfigError(
                    "graph.rates",
                    f"an axis is a node, a macro node or a category, found {name!r}"
                    f"{did_you_mean(name, list(axes))}",
                )
        found = sorted((axes[name] for name in names), key=_rank, reverse=True)
        group = RateGroup(tuple(found), last)
        if group in groups or len({*found}) < len(found):
            raise ConfigError(
                "graph.rates", f"groups and their axes must differ, found {group.name!r} twice; leave it out"
            )
        groups.append(group)
    return tuple(groups)


def listed(rates: Sequence[RateSettings], bucket: int) -> list[tuple[list[str], int | None]]:
    """Return groups of the settings as `parse_groups` takes them.

    Args:
        rates: The settings.
        bucket: Length of a bucket in microseconds.
    """
    return [
        (one.by, None if one.last is None else max(1, seconds(one.last) * SECOND // bucket)) for one in rates
    ]


def automatic(evidence: Mapping[str, float]) -> list[tuple[list[str], int | None]]:
    """Return the groups of `auto`, chosen on validation windows of real logs (ours).

    A category of items or of the context is counted if rates of its own explain at least `LEAST_EVIDENCE` of
    the labels' entropy. Of items at most `MOST_CATEGORIES` are taken, those with most evidence, and of the
    context at most `MOST_CONTEXTS`. The groups are the user and the item, over all history and over the last
    three buckets; each of these categories, and each with the user; and those of the context with the item.

    Args:
        evidence: Of every category of items and of the context, by the name of its axis.
    """
    ranked = sorted(evidence, key=lambda name: -evidence[name])
    telling = [name for name in ranked if evidence[name] >= LEAST_EVIDENCE]
    items = [name for name in telling if name.startswith("items.")][:MOST_CATEGORIES]
    contexts = [name for name in telling if not name.startswith("items.")][:MOST_CONTEXTS]
    return [
        *(([name], None) for name in (*SIDES, *contexts, *items)),
        *((["user", name], None) for name in (*contexts, *items)),
        *((["item", name], None) for name in contexts),
        *(([side], 3) for side in SIDES),
    ]


def is_axis_of_context(name: str) -> bool:
    """Return whether a category of the context can be an axis: nodes, macro nodes and side tables keep their
    names."""
    nodes = _axes({}, (), resolutions=0, dense=0)
    return name.partition("@")[0] not in nodes and not name.startswith(("users.", "items."))


def distinct(categories: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.integer]]:
    """Return every category of each row once: the rows, and the categories.

    Args:
        categories: Padded with -1. Shape (n, L).
    """
    ordered = np.sort(categories, axis=1)
    new = ordered >= 0
    new[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    return np.nonzero(new)[0], ordered[new]


def describe(groups: Sequence[RateGroup]) -> list[dict[str, Any]]:
    """Return the groups as plain values, for a manifest; `restore` reads them."""
    return [{"axes": [vars(axis) for axis in group.axes], "last": group.last} for group in groups]


def restore(held: Sequence[Mapping[str, Any]]) -> tuple[RateGroup, ...]:
    """Return the groups that `describe` wrote."""
    return tuple(RateGroup(tuple(Axis(**axis) for axis in group["axes"]), group["last"]) for group in held)


def _axes(sizes: Mapping[str, int], several: Container[str], resolutions: int, dense: int) -> dict[str, Axis]:
    axes = [Axis(side, side, "node") for side in SIDES]
    for side in SIDES:
        axes.append(Axis(f"{side}_macro", side, "macro", resolution=dense))
        axes += [Axis(f"{side}_macro@{r}", side, "macro", resolution=r) for r in range(resolutions)]
    sides: dict[str, Literal["user", "item", "context"]] = {"users": "user", "items": "item"}
    for name, size in sizes.items():
        side = sides.get(name.partition(".")[0], "context")
        axes.append(Axis(name, side, "category", size, several=name in several))
    return {axis.name: axis for axis in axes}


def _rank(axis: Axis) -> tuple[bool, bool, bool]:
    """Order axes by how many values they usually have: nodes, what follows from users, then categories.

    Axes that are alike stay as they are listed, so that the name of a group does not depend on the log.
    """
    return axis.kind == "node", axis.side == "user", axis.kind == "category"
