"""SASRec (Kang & McAuley 2018) and a model like HSTU (Zhai et al. 2024): what a user does next, from the last
events in order. Both learn in the same way and differ in their blocks alone.

Axes: `E` events, `U` users, `I` items, `B` users of a batch, `L` places of a sequence, `D` width, `M` places
of a batch with an event after them, `N` negatives.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from mgoe.config import RangeSettings
from mgoe.topn.baselines.baseline import Baseline, Budget
from mgoe.topn.baselines.sequence_network import Block, HSTUBlock, SASRecBlock, SequenceNetwork
from mgoe.topn.lists import Events, Scores

BATCH = 64
"""Users per step."""
CALIBRATION = 0.75
"""How far gBCE undoes that negatives are sampled, the t of its paper: 0 not at all, 1 fully."""


@dataclass(frozen=True)
class Histories:
    """The events of every user, in the order of time.

    Attributes:
        item, day: Of each event, ordered by user and time. Shape (E,).
        ends: Number of events up to and with those of each user. Shape (U,).
        sizes: Number of events of each user. Shape (U,).
    """

    item: NDArray[np.int64]
    day: NDArray[np.float32]
    ends: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, events: Events, rng: np.random.Generator) -> Self:
        """Put events in order. Those of one user at one time have none, and get one at random."""
        order = np.lexsort((rng.random(len(events.user)), -events.age, events.user))
        sizes = np.bincount(events.user, minlength=events.shape[0])
        return cls(events.item[order], -events.age[order].astype(np.float32), np.cumsum(sizes), sizes)

    def batches(self, length: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """Return random batches, in random order, of users with two events or more. Sequences of a batch are
        about as long, so that there is little padding."""
        users = rng.permutation(np.flatnonzero(self.sizes > 1))
        users = users[np.argsort(np.minimum(self.sizes[users], length), kind="stable")]
        parts = np.array_split(users, -(-len(users) // BATCH) or 1)
        return [parts[place] for place in rng.permutation(len(parts)) if len(users)]

    def last(self, users: NDArray[np.int64], length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return items and days of the last events of users, and where there is one: padding is at the end.

        Shape (B, L) each, with the longest of these sequences as L.
        """
        sizes = np.minimum(self.sizes[users], length)
        places = np.arange(sizes.max(initial=1))
        there = places < sizes[:, None]
        rows = (self.ends[users] - sizes)[:, None] + places * there
        return torch.from_numpy(self.item[rows]), torch.from_numpy(self.day[rows]), torch.from_numpy(there)


def softmax_loss(positive: torch.Tensor, negative: torch.Tensor, share: float) -> torch.Tensor:
    """Return the mean of -ln of the share of the positive in a softmax over it and sampled negatives, each of
    which stands for 1 / share items.

    Args:
        positive: Scores of what was done next. Shape (M,).
        negative: Scores of sampled items. Shape (M, N).
        share: N over the number of items that can be sampled.
    """
    return functional.softplus(negative.logsumexp(dim=1) - math.log(share) - positive).mean()


def gbce_loss(positive: torch.Tensor, negative: torch.Tensor, share: float) -> torch.Tensor:
    """Return the generalised binary cross-entropy of gSASRec (Petrov & Macdonald 2023): positives count less,
    the fewer items are sampled, so that scores are not too high. Arguments as of `softmax_loss`.

    Logits are scores minus ln of the number of items, so that each starts as the chance of one item. Without
    this, the first epochs teach only that all scores are low.
    """
    start = math.log(negative.shape[1] / share)
    power = 1 - CALIBRATION * (1 - share)
    of_each = power * functional.softplus(start - positive) + functional.softplus(negative - start).sum(dim=1)
    return of_each.mean()


LOSSES = {"softmax": softmax_loss, "gbce": gbce_loss}


def fit_sequences(
    block: Block, events: Events, settings: Mapping[str, Any], seed: int, budget: Budget
) -> Scores:
    """Learn to predict the next event at all places of the last `length` events of each user at once.

    Negatives are drawn uniformly, once per step for all its places; one that is what was done next does not
    count there. Users without events have zeros. A GPU is used where there is one.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rng, items, length = np.random.default_rng(seed), events.shape[1], settings["length"]
    with torch.random.fork_rng([torch.cuda.current_device()] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        network = SequenceNetwork(block, items, settings).to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=settings["learning_rate"], fused=True)
        for _ in budget.epochs(settings["epochs"]):
            histories = Histories.of(events, rng)
            for users in histories.batches(length, rng):
                item, day, there = (one.to(device) for one in histories.last(users, length + 1))
                negatives = torch.from_numpy(rng.integers(0, items, settings["negatives"])).to(device)
                loss = loss_of(network, item, day, there, negatives, LOSSES[settings["loss"]])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    network.eval()
    histories = Histories.of(events.profiles, rng)

    @torch.inference_mode()
    def scores(users: NDArray[np.int64]) -> NDArray[np.float32]:
        found = np.zeros((len(users), items), np.float32)
        known = np.flatnonzero(histories.sizes[users])
        item, day, there = (one.to(device) for one in histories.last(users[known], length))
        ends = there.sum(dim=1) - 1
        state = network(item, day)[torch.arange(len(known), device=device), ends]
        found[known] = (state @ network.items.weight.T).cpu().numpy()
        return found

    return scores


def loss_of(
    network: SequenceNetwork,
    item: torch.Tensor,
    day: torch.Tensor,
    there: torch.Tensor,
    negatives: torch.Tensor,
    loss: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor],
) -> torch.Tensor:
    """Return the loss of sequences with their next events. Negatives have shape (N,)."""
    state = network(item[:, :-1], day[:, :-1])[there[:, 1:]]  # (M, D)
    wanted = item[:, 1:][there[:, 1:]]
    sampled = (state @ network.items(negatives).T).masked_fill_(wanted[:, None] == negatives, -math.inf)
    share = len(negatives) / max(1, network.items.num_embeddings - 1)
    return loss((state * network.items(wanted)).sum(dim=1), sampled, min(1.0, share))


START = {
    "loss": "softmax",
    "length": 50,
    "width": 64,
    "heads": 2,
    "blocks": 2,
    "negatives": 512,
    "dropout": 0.2,
    "learning_rate": 0.004,
    "epochs": 8,
}
SPACE = {
    "loss": [*LOSSES],
    "length": [50],
    "width": [64],
    "heads": [2],
    "blocks": [2],
    "negatives": [512],
    "dropout": RangeSettings(low=0.1, high=0.5),
    "learning_rate": RangeSettings(low=1e-3, high=1e-2, log=True),
    "epochs": [4, 8, 16],
}
SASREC = Baseline(partial(fit_sequences, SASRecBlock), START, SPACE, random=True, by_profile=True)
HSTU = Baseline(partial(fit_sequences, HSTUBlock), START, SPACE, random=True, by_profile=True)
