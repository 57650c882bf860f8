"""Macro nodes of one snapshot: learned from a sample of the users, kept from the snapshot before, or dealt by lot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import mapped, save_arrays
from mgoe.graph import likelihood
from mgoe.graph.build import clusters
from mgoe.graph.build.learned import Learned, as_on_one_thread
from mgoe.graph.build.snapshot_builder import SnapshotBuild
from mgoe.graph.build.stages import Advance
from mgoe.graph.pair_rows import OTHER, SIDES, PairRows, Side

Sizes = dict[Side, int]
Macro = dict[Side, NDArray[np.int32]]


def find_macro_nodes(
    build: SnapshotBuild, before: Path | None, learned: Learned | None, advance: Advance
) -> None:
    """Macro node of every node at every resolution, and by what newcomers will find theirs."""
    if learned is None and before and not build.graph.settings.refresh:
        learned = Learned.of(before, len(build.graph.sizes), build.graph.settings.scale)
    pairs = {} if learned else _sampled_pairs(build)
    for r, sizes in enumerate(build.graph.sizes):
        k = dict(zip(SIDES, sizes, strict=True))
        macro, chances = (
            _kept(build, r, k, learned, advance) if learned else _learned(build, r, k, before, pairs, advance)
        )
        for side in SIDES:
            save_arrays(
                build.folder, {f"r{r}.{side}_macro": macro[side], f"r{r}.{side}_chances": chances[side]}
            )


def _sampled_pairs(build: SnapshotBuild) -> dict[Side, PairRows]:
    """Pairs of the users that are learned from, by either side, in memory."""
    rows = PairRows.by_user(build.folder).some(build.sample()[0])
    return {"user": rows, "item": rows.transposed(len(build.sums("item")))}


def _learned(
    build: SnapshotBuild, r: int, k: Sizes, before: Path | None, pairs: dict[Side, PairRows], advance: Advance
) -> tuple[Macro, Macro]:
    """Start from vectors, settle on a sample of the users, and place every node; users last, so that they lie where edges tie them."""
    s, users = build.graph.settings, build.sample()[0]
    macro: Macro = {
        side: _start(build, side, k[side], mapped(before / f"r{r}.{side}_macro.npy") if before else None)
        for side in SIDES
    }
    own = macro["user"] if users is None else macro["user"][users]
    rounds = 0 if s.clusters == "random" else s.rounds
    settled, chances = likelihood.settle(
        pairs, {"user": own, "item": macro["item"]}, k, build.graph.scores, rounds
    )
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
def _start(build: SnapshotBuild, side: Side, k: int, before: NDArray[np.int32] | None) -> NDArray[np.int32]:
    """The macro node of every node that its vector is closest to."""
    s, vectors, sums = build.graph.settings, mapped(build.folder / f"{side}_vectors.npy"), build.sums(side)
    if s.clusters == "random":
        return _random(build, side, k)
    weights = clusters.moving_weights(
        clusters.preference_weights(sums, s.threshold, s.low_weight), sums > 0, k
    )
    return clusters.assign(
        vectors, sums > 0, clusters.learn_centres(vectors, weights, k, before, s.iterations, s.seed, s.sample)
    )


def _random(build: SnapshotBuild, side: Side, k: int) -> NDArray[np.int32]:
    return clusters.random_groups(build.sums(side) > 0, k, (build.graph.settings.seed, SIDES.index(side)))


def _kept(build: SnapshotBuild, r: int, k: Sizes, learned: Learned, advance: Advance) -> tuple[Macro, Macro]:
    """Former macro nodes; newcomers, users first, join those that tie them best to the ones that have a macro node.

    Users whose items are all new wait for these; who is tied to newcomers alone joins the first macro node.
    """
    chances, linked = learned.chances[r], {side: build.sums(side) > 0 for side in SIDES}
    macro: Macro = {side: clusters.keep(learned.macro[r][side], linked[side], k[side]) for side in SIDES}
    for side in (*SIDES, *SIDES):
        new = linked[side] & (macro[side] == k[side])
        if build.graph.settings.clusters == "random":
            macro[side][new] = _random(build, side, k[side])[new]
        elif new.any():
            macro[side][new] = _placed(build, side, macro[OTHER[side]], chances[side], lambda pairs: None)[
                new
            ]
    for side in SIDES:
        macro[side][linked[side] & (macro[side] == k[side])] = 0
    advance(3 * build.pairs)
    return macro, dict(chances)


def _placed(
    build: SnapshotBuild, side: Side, macro: NDArray[np.int32], chances: NDArray[np.int32], advance: Advance
) -> NDArray[np.int32]:
    """The macro node that ties every node of a side best to those of the other."""
    reading = likelihood.Likeliest(build.graph.scores, macro, chances)
    return np.concatenate([part["macro"] for part in build.read(side, reading, advance)])
