"""When each input of a model is read to score one user's candidates: the one plan of a scorer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from mgoe.features import GROUPS, Key, Reader, batch_keys
from mgoe.graph.pair_rows import Side
from mgoe.models import Decomposition, FoldedDecomposition, RankingModel


@dataclass(frozen=True)
class ScoringPlan:
    """What is read once per request, once per item, and for every candidate.

    Attributes:
        model: The whole model, which explanations and a decomposition that computes nothing ahead read.
        decomposition: The model taken apart by what it reads: of the user, of the item, and of both.
        keys: All that the model reads of a batch.
        user: Reads what `decomposition.user` reads, and the keys in `shared`.
        item: Reads what `decomposition.item` reads.
        pair: Reads the columns of the pair.
        shared: Other keys that `decomposition.join` reads, which belong to the user or to the item.
        others: Reads these.
        whole: Reads everything.
        mixing: Experts, towers and gates of a row where rows are mixed as they are read, see
            `FoldedDecomposition`.
    """

    model: RankingModel
    decomposition: Decomposition
    keys: dict[str, Key]
    user: Reader
    item: Reader
    pair: Reader
    shared: frozenset[str]
    others: Reader
    whole: Reader
    mixing: tuple[int, int, int] | None

    @classmethod
    def of(cls, model: RankingModel) -> ScoringPlan:
        """Plan how to score with a model and its weights."""
        spec, keys = model.spec, batch_keys(model.spec, model.needs)
        taken = model.decompose().eval()
        late = frozenset() if taken.whole else taken.keys & keys.keys()
        shared = frozenset(name for name in late if "pair" not in keys[name].parts)
        own = {group: {key.name for key in GROUPS[group].keys(spec)} for group in model.needs}

        def reader(names: Collection[str], side: Side) -> Reader:
            groups = [group for group in model.needs if not own[group].isdisjoint(names)]
            return Reader(groups, spec, side=side)

        return cls(
            model=model,
            decomposition=taken,
            keys=keys,
            user=reader(taken.user_keys | shared, "user"),
            item=reader(taken.item_keys, "item"),
            pair=Reader(model.needs if late else (), spec, part="pair"),
            shared=shared,
            others=reader(shared, "item"),
            whole=Reader(model.needs, spec),
            mixing=taken.mixed if isinstance(taken, FoldedDecomposition) else None,
        )
