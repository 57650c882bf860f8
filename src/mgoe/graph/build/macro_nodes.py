"""The macro nodes of one snapshot: learned from a sample of the users, kept, or random groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import mapped, save_arrays
from mgoe.graph import likelihood
from mgoe.graph.build import clusters
from mgoe.graph.build.learned import Learned, as_on_one_thread
from mgoe.graph.build.stages import Advance
from mgoe.graph.pair_rows import OTHER, SIDES, PairRows, Side

if TYPE_CHECKING:
    from mgoe.graph.build.snapshot_builder import SnapshotBuilder

Macro = dict[Side, NDArray[np.int32]]


def find_macro_nodes(build: SnapshotBuilder, advance: Advance) -> None:
    """Write the macro node of every node at every resolution, and the chances by which later nodes find
    theirs.
    """
    settings, learned = build.plan.settings, build.learned
    if learned is None and build.previous and not settings.refresh:
        learned = Learned.of(build.previous, len(build.plan.sizes), settings.scale)
    pairs = {} if learned else _sampled_pairs(build)
    for r, sizes in enumerate(build.plan.sizes):
        k = dict(zip(SIDES, sizes, strict=True))
        if learned:
            macro, chances = _kept(build, k, learned.macro[r], learned.chances[r], advance)
        else:
            macro, chances = _learned(build, r, k, pairs, advance)
        for side in SIDES:
            arrays = {f"r{r}.{side}_macro": macro[side], f"r{r}.{side}_chances": chances[side]}
            save_arrays(build.folder, arrays)


def _sampled_pairs(build: SnapshotBuilder) -> dict[Side, PairRows]:
    """Return the pairs of the sampled users by either side, in memory."""
    rows = PairRows.by_user(build.folder).some(build.sample()[0])
    return {"user": rows, "item": rows.transposed(len(build.sums("item")))}


def _learned(
    build: SnapshotBuilder, r: int, k: dict[Side, int], pairs: dict[Side, PairRows], advance: Advance
) -> tuple[Macro, Macro]:
    """Start from vectors, settle on the sampled users, then place every node; users last, so that their edges
    agree.
    """
    s, users = build.plan.settings, build.sample()[0]
    macro: Macro = {side: _start(build, r, side, k[side]) for side in SIDES}
    start: Macro = {"user": macro["user"] if users is None else macro["user"][users], "item": macro["item"]}
    rounds = 0 if s.clusters == "random" else s.rounds
    settled, chances = likelihood.settle(pairs, start, k, build.plan.scores, rounds)
    if s.clusters == "random":
        advance(3 * build.pairs)
        return macro, chances
    if users is None:
        advance(build.pairs)
    else:
        settled["user"] = _placed(build, "user", settled["item"], chances["user"], advance)
    for side in ("item", "user"):
        settled[side] = _placed(build, side, settled[OTHER[side]], chances[side], advance)
    return settled, chances


@as_on_one_thread
def _start(build: SnapshotBuilder, r: int, side: Side, k: int) -> NDArray[np.int32]:
    """Return the macro node whose centre is closest to each node's vector."""
    s, linked = build.plan.settings, build.sums(side) > 0
    if s.clusters == "random":
        return _random(build, side, k)
    previous = mapped(build.previous / f"r{r}.{side}_macro.npy") if build.previous else None
    vectors = mapped(build.folder / f"{side}_vectors.npy")
    weights = clusters.preference_weights(build.sums(side), s.threshold, s.low_weight)
    weights = clusters.moving_weights(weights, linked, k)
    centres = clusters.learn_centres(vectors, weights, k, previous, s.iterations, s.seed, s.sample)
    return clusters.assign(vectors, linked, centres)


def _random(build: SnapshotBuilder, side: Side, k: int) -> NDArray[np.int32]:
    seed = build.plan.settings.seed, SIDES.index(side)
    return clusters.random_groups(build.sums(side) > 0, k, seed)


def _kept(
    build: SnapshotBuilder, k: dict[Side, int], kept: Macro, chances: Macro, advance: Advance
) -> tuple[Macro, Macro]:
    """Keep former macro nodes. New nodes, users first, join the one that ties them best to nodes that have
    one.

    Users whose items are all new wait for these. A node that is tied to new nodes alone joins the first macro
    node.
    """
    linked = {side: build.sums(side) > 0 for side in SIDES}
    macro: Macro = {side: clusters.keep(kept[side], linked[side], k[side]) for side in SIDES}
    for side in (*SIDES, *SIDES):
        new = linked[side] & (macro[side] == k[side])
        if build.plan.settings.clusters == "random":
            macro[side][new] = _random(build, side, k[side])[new]
        elif new.any():
            placed = _placed(build, side, macro[OTHER[side]], chances[side], lambda pairs: None)
            macro[side][new] = placed[new]
    for side in SIDES:
        macro[side][linked[side] & (macro[side] == k[side])] = 0
    advance(3 * build.pairs)
    return macro, dict(chances)


def _placed(
    build: SnapshotBuilder,
    side: Side,
    macro: NDArray[np.int32],
    chances: NDArray[np.int32],
    advance: Advance,
) -> NDArray[np.int32]:
    """Return the macro node that ties every node of a side best to the macro nodes of the other."""
    reading = likelihood.Likeliest(build.plan.scores, macro, chances)
    return np.concatenate([part["macro"] for part in build.read(side, reading, advance)])
