"""Made-up predictions, whose rows of one user depend on one another."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Task:
    name: str
    kind: str = "binary"


TASKS = (Task("click"), Task("buy"), Task("stay", "regression"))


def made_up(seed, users=60, rows=600, skill=1.0, missing=0.1):
    """Labels and scores (N, 3), users (N,): two binary tasks and a regression; users differ in activity, rate
    and difficulty.
    """
    rng = np.random.default_rng(seed)
    user = np.minimum(rng.geometric(3 / users, rows), users) - 1
    taste, noise = rng.normal(size=users)[user], rng.uniform(0.5, 2, users)[user]
    signal = rng.normal(size=(rows, 3))
    logits = 0.7 * taste[:, None] + signal - [0.5, 1.5, 0]
    labels = (rng.random((rows, 3)) < 1 / (1 + np.exp(-logits))).astype(float)
    labels[:, 2] = np.exp(0.3 * logits[:, 2]) * (labels[:, 2] + 0.2)
    labels[rng.random((rows, 3)) < missing] = np.nan
    guess = (
        0.4 * taste[:, None] + skill * signal + noise[:, None] * rng.normal(size=(rows, 3)) - [0.5, 1.5, 0]
    )
    scores = 1 / (1 + np.exp(-guess))
    scores[:, :2] = np.round(scores[:, :2], 2).clip(0.01, 0.99)  # ties
    return labels, scores, user


def drawn_again(users, rng):
    """Rows of users drawn with replacement, as often as they are drawn, and a name for each draw."""
    order = np.argsort(users, kind="stable")
    blocks = np.split(order, np.flatnonzero(np.diff(users[order])) + 1)
    picks = rng.integers(0, len(blocks), len(blocks))
    return np.concatenate([blocks[p] for p in picks]), np.repeat(
        np.arange(len(picks)), [len(blocks[p]) for p in picks]
    )
