"""Placing nodes by what they are about (ours): pseudo-scores that a node with content reads beside its own.

A ridge regression learns from content what the nodes of a snapshot look like: `vector / sqrt(sum)`, since a
vector grows with its degree, and of every resolution the centred logarithms of the shares of its edges. The
mean content predicts the mean shares: logarithms of few scores would have another mean. A node with content
then reads `kappa` scores more, spread over the macro nodes of the other side as its content predicts (`p`):
edges `n + kappa p`, sum `s + kappa`, the vector by the same mean, and the macro node that is likeliest by
these edges.

The strength of the ridge and a concentration `c` are those that make the edges of held-out nodes most likely
if their scores are Dirichlet-multinomial with the parameters `c p`; `b` is that of the mean shares. Content
adds `h = c - b`, and `kappa = c h / (h + s)`: content alone speaks where there is no history, and fades as
history comes, which soon tells more.

Content tells nothing if at no snapshot of a graph but the latest it makes these edges much likelier than the
mean shares do. The graph then has none: a model meets placed nodes at every snapshot or never.

All of this is for reading: sums, masses, chances, second order and macro nodes never hold a pseudo-score.

Axes: `n` nodes, `D` columns of content, `Z` resolutions, `W` macro nodes of the other side over all
resolutions, cold ones left out, `m` nodes read at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import take
from mgoe._util.kernels import kernel
from mgoe.graph.arithmetic import eigen, exp, log, log_gamma, product
from mgoe.graph.edges import SparseEdges, log_scores, type_of_scores
from mgoe.graph.likelihood import likeliest
from mgoe.graph.scores import UNIT

STRENGTHS = (0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""Strengths of the ridge that are tried, as shares of the weight of all nodes."""
NOTHING = 1e9
"""A strength that leaves nothing of content."""
TELLS = 5.0
"""Content tells something if it makes the scores of held-out nodes e^5 times as likely: very strong evidence,
as Bayes factors are usually read."""
HELD, MOST_HELD = 4, 1 << 13
"""One node in `HELD` is held out, and at most so many."""
KAPPAS = 0.1, 1e3
"""Least and largest number of pseudo-scores."""
ROWS = 1 << 12
"""Nodes read at once."""


class SomeNodes(NamedTuple):
    """Nodes of one side, as they are without content.

    Attributes:
        content: Zeros throughout where a node has none. Shape (m, D).
        sums: Fixed-point score sums. Shape (m,).
        vectors: Of the sketch. Shape (m, rank).
        edges: 1st-order edges in fixed point, at each resolution. Shape (m, macro nodes of the other side)
            each.
        macro: Own macro node at each resolution. Shape (m,) each.
    """

    content: NDArray[np.float32]
    sums: NDArray[np.int64]
    vectors: NDArray[np.float32]
    edges: Sequence[NDArray[np.integer]]
    macro: Sequence[NDArray[np.int32]]

    @classmethod
    def of(
        cls,
        rows: NDArray[np.int64],
        content: NDArray[np.float32],
        sums: NDArray[np.int64],
        vectors: NDArray[np.float32],
        edges: Sequence[SparseEdges],
        macro: Sequence[NDArray[np.int32]],
        sizes: Sequence[tuple[int, int]],
    ) -> Self:
        """Return some nodes of a snapshot, from arrays of all; a node beyond them has zeros, and is cold.

        Args:
            rows: Which nodes. Shape (m,).
            content, sums, vectors, edges, macro: Of all nodes; content may be of more or fewer.
            sizes: Macro nodes of this side and of the other, at each resolution.
        """
        return cls(
            take(content, rows, 0),
            take(sums, rows, 0),
            take(vectors, rows, 0),
            [one.of(rows, width) for one, (_, width) in zip(edges, sizes, strict=True)],
            [take(own, rows, cold) for own, (cold, _) in zip(macro, sizes, strict=True)],
        )


Gather = Callable[[NDArray[np.int64]], SomeNodes]
"""Return some nodes by index, see `SomeNodes.of`."""


class Placing(NamedTuple):
    """What content predicts of the nodes of one side.

    Attributes:
        targets: Of each column of a vector, and then of the logarithm of each share before shares are made
            to add up to 1: its weights of content, and a constant. Shape (rank + W, D + 1).
        worth: `kappa` of a node without scores, the sum of own scores that halves it, and how much content
            adds to the log-likelihood of held-out nodes. Shape (3,).
    """

    targets: NDArray[np.float32]
    worth: NDArray[np.float64]

    @classmethod
    def fit(
        cls, gather: Gather, rows: NDArray[np.int64], masses: Sequence[NDArray[np.floating]], dense: int
    ) -> Self:
        """Learn from nodes that have both content and scores.

        Args:
            gather: Reads nodes.
            rows: Which of them. Shape (any,).
            masses: Score of the macro nodes of the other side, at each resolution.
            dense: The resolution by which the strength of the ridge and `kappa` are chosen.
        """
        held = rows[HELD - 1 :: HELD]
        held = np.ascontiguousarray(held[:: max(1, -(-len(held) // MOST_HELD))])
        some, usual = gather(held), [log((mass + 1.0) / (mass + 1.0).sum()) for mass in masses]
        content, edges = _with_constant(some.content), some.edges[dense] / UNIT
        spread, _ = most_likely(edges, np.tile(usual[dense], (len(held), 1)))
        rest, own = (_moments(gather, part, usual, spread) for part in (np.setdiff1d(rows, held), held))
        last = sum(len(logs) for logs in usual[dense + 1 :])
        shares = slice(-last - len(usual[dense]), -last or None)
        tried = []
        for strength in (NOTHING, *STRENGTHS):
            kappa, likelihood = most_likely(edges, product(content, rest.ridge(strength)[:, shares]))
            tried.append((likelihood, strength, kappa))
        likelihood, strength, kappa = max(tried)
        found = _Moments(*map(np.add, rest, own)).ridge(strength)
        without, _, spread = tried[0]
        worth = kappa if len(held) else 0.0, max(kappa - spread, KAPPAS[0]), likelihood - without
        return cls(np.ascontiguousarray(found.T, np.float32), np.array(worth))

    def read(self, nodes: SomeNodes, chances: Sequence[NDArray[np.int32]], dense: int) -> dict[str, NDArray]:
        """Return what nodes read with their content.

        Args:
            nodes: As they are without.
            chances: Of `likelihood.log_chances`, at each resolution.
            dense: The resolution of `log_first`.

        Returns:
            `kappa` and `sum` (m,), `vectors` (m, rank), `log_first` as a snapshot has it, and for each
            resolution `macro0`, ... and `norm0`, ..., what is subtracted from the logarithms before
            pseudo-scores are rounded, (m,) each, and `edges0`, ... in fixed point, as `nodes` has them. A
            node without content has a kappa of 0, and a norm of infinity.
        """
        predicted = np.empty((len(nodes.sums), len(self.targets)))
        _predict(nodes.content, self.targets.T.astype(np.float64, order="C"), predicted)
        (most, half, _), own = self.worth, nodes.sums / UNIT
        kappa = np.where(nodes.content.any(axis=1), most * half / (half + own), 0.0)
        placed, end = kappa > 0, nodes.vectors.shape[1]
        vectors = np.sqrt(own)[:, None] * nodes.vectors + kappa[:, None] * predicted[:, :end]
        vectors /= np.sqrt(np.where(placed, own + kappa, 1))[:, None]
        out: dict[str, NDArray] = {
            "kappa": kappa.astype(np.float32),
            "sum": (own + kappa).astype(np.float32),
            "vectors": np.where(placed[:, None], vectors, nodes.vectors).astype(np.float32),
        }
        unit = log(kappa * UNIT)
        for r, (edges, macro) in enumerate(zip(nodes.edges, nodes.macro, strict=True)):
            start, end = end, end + edges.shape[1]
            logs = np.ascontiguousarray(predicted[:, start:end])
            norm = (log(exp(logs).sum(axis=1)) - unit).astype(np.float32)
            read = edges + np.rint(exp(logs - norm[:, None])).astype(np.int64)
            n, width = read.shape
            columns = np.tile(np.arange(width, dtype=np.uint16), n)
            scores = read.ravel().astype(type_of_scores(int(read.max(initial=0))), copy=False)
            every = SparseEdges(np.arange(0, n * width + 1, width), columns, scores)
            likely = likeliest(every, chances[r])
            out[f"macro{r}"] = np.where(placed, likely, macro).astype(np.int32)
            out[f"norm{r}"], out[f"edges{r}"] = norm, read
            if r == dense:
                out["log_first"] = log_scores(read, UNIT)
        return out


def most_likely(edges: NDArray[np.float64], logs: NDArray[np.float64]) -> tuple[float, float]:
    """Return the concentration by which scores are likeliest, and their log-likelihood, but for what does not
    depend on shares.

    Args:
        edges: Scores of nodes. Shape (m, K).
        logs: Logarithms of the expected shares, up to a constant per node. Shape (m, K).

    Example:
        >>> alike = np.array([[6.0, 2.0], [3.0, 1.0], [9.0, 3.0]])
        >>> most_likely(alike, np.log(alike))[0] > 500
        True
    """
    from scipy.optimize import minimize_scalar  # slow to import, and a service does not need it

    shares = exp(logs)
    shares = shares / shares.sum(axis=1, keepdims=True) + 1e-9
    shares /= shares.sum(axis=1, keepdims=True)
    total = edges.sum(axis=1)

    def loss(log_kappa: float) -> float:
        kappa = float(exp(log_kappa))
        expected = kappa * shares
        each = (log_gamma(expected + edges) - log_gamma(expected)).sum(axis=1)
        return -float((each + log_gamma(kappa) - log_gamma(kappa + total)).sum())

    found = minimize_scalar(loss, bounds=log(np.array(KAPPAS)), method="bounded", options={"xatol": 0.01})
    return float(exp(found.x)), -found.fun


class _Moments(NamedTuple):
    """Weighted sums over some nodes. Each weighs as much as its shares are its own, `s / (s + spread)`.

    Attributes:
        squares: Of products of content and constant. Shape (D + 1, D + 1).
        products: Of content and constant, and targets. Shape (D + 1, rank + W).
        shares: Of shares. Shape (W,).
    """

    squares: NDArray[np.float64]
    products: NDArray[np.float64]
    shares: NDArray[np.float64]

    def ridge(self, strength: float) -> NDArray[np.float64]:
        """Return weights of content and a constant, by which the mean content has the mean shares. Shape (D +
        1, rank + W).
        """
        total, n = max(self.squares[-1, -1], 1e-9), len(self.shares)
        mean = self.squares[-1] / total
        variance = np.diag(self.squares) / total - mean**2
        held_back = np.diag(strength * np.maximum(variance, 0) + 1e-6)
        values, vectors = eigen(self.squares / total + held_back)
        found = product(vectors / values, product(vectors.T, self.products / total))
        found[-1, -n:] = log(self.shares / total + 1e-9) - product(mean[None, :-1], found[:-1, -n:])[0]
        return found


def _moments(
    gather: Gather, rows: NDArray[np.int64], usual: Sequence[NDArray[np.float64]], spread: float
) -> _Moments:
    """Return the moments of some nodes; the targets of shares are centred logarithms of their ratios to the
    usual ones."""
    found = _Moments(np.zeros(()), np.zeros(()), np.zeros(()))
    for first in range(0, max(1, len(rows)), ROWS):
        some = gather(rows[first : first + ROWS])
        content, own = _with_constant(some.content), some.sums[:, None] / UNIT
        shares = [
            (edges / UNIT + exp(logs)) / (own + 1) for edges, logs in zip(some.edges, usual, strict=True)
        ]
        targets = [some.vectors / np.sqrt(own)]
        for share, logs in zip(shares, usual, strict=True):
            target = log(share) - logs
            targets.append(target - target.mean(axis=1, keepdims=True))
        weights = own / (own + spread)
        sums = (
            product((content * weights).T, content),
            product((content * weights).T, np.concatenate(targets, axis=1)),
            (weights * np.concatenate(shares, axis=1)).sum(axis=0),
        )
        found = _Moments(*map(np.add, found, sums))
    return found


def _with_constant(content: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.column_stack([content, np.ones(len(content))]).astype(np.float64)


@kernel("out")
def _predict(content, targets, out):  # pragma: no cover - compiled
    """Write the prediction of every target, summed in the order of `predicted`, whoever is read beside it."""
    for row in range(len(out)):
        out[row] = targets[-1]
        for d in range(content.shape[1]):
            out[row] += content[row, d] * targets[d]


@kernel(inline="always")
def predicted(content, targets, row, t):  # pragma: no cover - compiled
    """Return one prediction of one node."""
    total = np.float64(targets[t, -1])
    for d in range(content.shape[1]):
        total += np.float64(content[row, d]) * targets[t, d]
    return total
