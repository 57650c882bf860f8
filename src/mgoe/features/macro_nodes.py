"""Macro nodes described for people: by their most typical members and by the features that set them apart.

Axes: `n` nodes of one side, `K` its macro nodes, `W` macro nodes of the other side.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mgoe.data import FeatureEncoders, SideFeatures, Vocabulary
from mgoe.graph import Snapshot
from mgoe.graph.pair_rows import Side

SHOWN = 5
"""Typical members that are listed."""
IN_NAME = 3
"""Typical members in the name of a macro node."""
ACTIVE = 50
"""Members of a macro node with the highest score sums, among which typical ones are looked for."""
SHARE, LIFT = 0.15, 1.5
"""A category is named if at least this share of the members have it, and it is this many times as common
among them as among all."""
DISTANCE = 0.5
"""A number is named if the mean of the members is this many standard deviations from the mean of all."""
TRAITS = 3
"""Features that are named, at most."""


@dataclass(frozen=True)
class MacroNode:
    """One macro node, described.

    Attributes:
        node: Its number.
        name: A short text that stands for it.
        members: How many users, or items, belong to it.
        typical: Ids of members whose edges are most like those of the whole macro node, most alike first.
        typical_names: What people call these, or their ids as texts.
        features: What sets its members apart, in words, the clearest first.
    """

    node: int
    name: str
    members: int
    typical: list[Any]
    typical_names: list[str]
    features: list[str]


def describe_macro_nodes(
    snapshot: Snapshot,
    side: Side,
    ids: Vocabulary | None = None,
    features: SideFeatures | None = None,
) -> list[MacroNode]:
    """Describe the macro nodes of one side at the dense resolution, by number.

    Args:
        snapshot: The graph.
        side: Of users, or of items.
        ids: Ids of the nodes; without them members are indices.
        features: Features and names of the nodes.
    """
    macro = np.asarray(getattr(snapshot.resolutions[snapshot.dense], f"{side}_macro"))
    typical = typical_members(snapshot, side)
    counts = np.bincount(macro, minlength=len(typical))
    traits = [[] for _ in typical] if features is None else features_of_groups(macro, len(typical), features)
    found = []
    for node, members in enumerate(typical):
        own = members.tolist() if ids is None else ids.ids(members).to_pylist()
        called = [None] * len(own) if features is None else features.names_of(members)
        typical_names = [name or str(id) for name, id in zip(called, own, strict=True)]
        name = _name(traits[node], typical_names[:IN_NAME])
        found.append(MacroNode(node, name, int(counts[node]), own, typical_names, traits[node]))
    return found


def typical_members(snapshot: Snapshot, side: Side) -> list[NDArray[np.int64]]:
    """Return the most typical members of each macro node by index, most typical first.

    Of the members with the highest score sums, they are those whose edges are spread over the macro nodes of
    the other side most like the edges of the whole macro node: by the Bhattacharyya coefficient
    sum_w sqrt(p_w q_w) of the two distributions.
    """
    dense = snapshot.resolutions[snapshot.dense]
    macro = np.asarray(getattr(dense, f"{side}_macro"))
    edges = dense.macro_edges if side == "user" else dense.macro_edges.T  # (K, W)
    order = np.lexsort((-np.asarray(snapshot.arrays[f"{side}_sum"]), macro))
    starts = np.searchsorted(macro[order], np.arange(len(edges) + 1))
    found = []
    for node, whole in enumerate(edges.astype(np.float64)):
        active = order[starts[node] : starts[node + 1]][:ACTIVE]
        own = np.expm1(snapshot.arrays[f"{side[0]}1"][active].astype(np.float64))
        alike = np.sqrt(own * whole).sum(1) / np.sqrt(np.maximum(own.sum(1) * whole.sum(), 1e-12))
        found.append(active[np.argsort(-alike, kind="stable")[:SHOWN]])
    return found


def features_of_groups(groups: NDArray[np.integer], size: int, side: SideFeatures) -> list[list[str]]:
    """Return in words what sets the nodes of each group apart, the clearest first.

    Args:
        groups: Group of each node; `size` for none. Shape (n,).
        size: K.
        side: Features of the nodes.
    """
    found: list[list[tuple[float, str]]] = [[] for _ in range(size)]
    for name in (name for name in side.arrays if name not in side.encoders.spaces):
        values = side.column(name, np.arange(len(groups)))
        describe = _numbers if name == "numeric" else partial(_categories, feature=name)
        for group, clear, text in describe(groups, size, values, side.encoders):
            found[group].append((clear, text))
    return [[text for _, text in sorted(traits, key=lambda one: -one[0])[:TRAITS]] for traits in found]


def _categories(
    groups: NDArray[np.integer], size: int, values: NDArray, encoders: FeatureEncoders, feature: str
) -> Iterator[tuple[int, float, str]]:
    """Yield group, clearness and words of each category that sets a group apart.

    Clearness is the share in the group times the logarithm of its lift, the part of the category in the
    Kullback-Leibler divergence of the group from all nodes.
    """
    vocabulary = encoders.vocabularies[feature]
    columns = values[:, None] if values.ndim == 1 else values
    node, place = np.nonzero(columns > 0)
    category = columns[node, place] - 1
    ones = np.ones(len(node))
    counts = sparse.coo_array((ones, (groups[node], category)), (size + 1, vocabulary.size)).tocsr()
    overall = np.asarray(counts.sum(0)).ravel() / max(len(groups), 1)
    members = np.bincount(groups, minlength=size + 1)
    cells = counts[:size].tocoo()
    share = cells.data / members[cells.row]
    lift = share / overall[cells.col]
    for one in np.flatnonzero((share >= SHARE) & (lift >= LIFT)):
        text = vocabulary.ids([cells.col[one]])[0].as_py()
        said = f"{feature} {text} ({share[one]:.0%}, of all {overall[cells.col[one]]:.0%})"
        yield int(cells.row[one]), float(share[one] * np.log(lift[one])), said


def _numbers(
    groups: NDArray[np.integer], size: int, values: NDArray[np.float32], encoders: FeatureEncoders
) -> Iterator[tuple[int, float, str]]:
    """Yield group, clearness and words of each number whose mean sets a group apart.

    Clearness is the divergence of a normal distribution with that mean, half the squared distance.
    """
    members = np.maximum(np.bincount(groups, minlength=size + 1), 1)
    for column, name in enumerate(encoders.names("numeric")):
        distance = np.bincount(groups, values[:, column], size + 1) / members
        mean, deviation = encoders.moments[name]
        for group in np.flatnonzero(np.abs(distance[:size]) >= DISTANCE):
            said = f"{name} {mean + deviation * distance[group]:.3g} on average (of all {mean:.3g})"
            yield int(group), float(distance[group] ** 2 / 2), said


def _name(traits: Sequence[str], members: Sequence[str]) -> str:
    """Return a name such as `color red: Red shoe, Red hat, Red scarf`."""
    kind = traits[0].partition(" (")[0] + ": " if traits else "such as "
    return kind + (", ".join(members) or "no member")
