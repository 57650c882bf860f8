"""When each input of a model is read to score one user's candidates: the one plan of a scorer."""

from __future__ import annotations

from dataclasses import dataclass

from mgoe.models import Decomposition, FoldedDecomposition, Owners, RankingModel, batch_keys, owner_of


@dataclass(frozen=True)
class ScoringPlan:
    """What is read once per request, once per item, and for every candidate.

    Attributes:
        model: The whole model, which explanations and a decomposition that computes nothing ahead read.
        decomposition: The model taken apart by what it reads: of the user, of the item, and of both.
        user_groups: Groups that are gathered once per request: what `decomposition.user` reads, and `shared_groups`.
        item_groups: Groups that are gathered once per item, when its row is computed.
        pair_keys: Keys whose pair columns are gathered for every candidate.
        shared_keys: Other keys that `decomposition.join` reads, which belong to the user or to the item.
        shared_groups: The groups of `shared_keys`.
        mixing: Experts, towers and gates of a row where rows are mixed as they are read, see `FoldedDecomposition`.
    """

    model: RankingModel
    decomposition: Decomposition
    user_groups: frozenset[str]
    item_groups: frozenset[str]
    pair_keys: frozenset[str]
    shared_keys: frozenset[str]
    shared_groups: frozenset[str]
    mixing: tuple[int, int, int] | None

    @classmethod
    def of(cls, model: RankingModel, owners: Owners, pair_keys: frozenset[str]) -> ScoringPlan:
        """Plan how to score with a model.

        Args:
            model: With its weights.
            owners: The owner of each column, for keys whose columns belong to several.
            pair_keys: Keys whose pair columns can be gathered for every candidate.
        """
        decomposition = model.decompose(owners).eval()
        read = frozenset() if decomposition.whole else decomposition.keys & pair_keys
        shared = frozenset() if decomposition.whole else decomposition.keys - read
        unread = sorted(key for key in shared if owner_of(key) == "pair")
        assert not unread, f"no column of a pair may be left out, found {unread}"

        def groups(keys: frozenset[str]) -> frozenset[str]:
            own = {
                group: batch_keys(model.spec, [group])[4:] for group in model.needs
            }  # without the four indices
            return frozenset(group for group in model.needs if not keys.isdisjoint(own[group]))

        return cls(
            model=model,
            decomposition=decomposition,
            user_groups=groups(decomposition.user_keys | shared),
            item_groups=groups(decomposition.item_keys) - {"context"},
            pair_keys=read,
            shared_keys=shared,
            shared_groups=groups(shared),
            mixing=decomposition.mixed if isinstance(decomposition, FoldedDecomposition) else None,
        )
