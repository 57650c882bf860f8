"""Scores one user's candidates: the user's part of the model once a request, the items' parts kept, and the pairs' few columns.

Axes: `B` candidates, `T` tasks, `F` floats a row of the first layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from mgoe.bundle import Bundle
from mgoe.errors import ConfigError
from mgoe.models import Batch, FoldedHalves, Halves, batch_keys, owner_of
from mgoe.serving.scoring.gather import PairGather, owners
from mgoe.serving.scoring.item_rows import ItemRows
from mgoe.serving.scoring.onnx import Precision, Runtime, Sessions
from mgoe.training.assemble import assemble

if TYPE_CHECKING:
    from mgoe.serving.online.live import LiveNodes

BLOCK_ROWS = 16_384


def check_precision(engine: Runtime, precision: Precision) -> None:
    """See that an engine has a precision.

    Raises:
        ConfigError: It has not.
    """
    if engine == "torch" and precision == "int8":
        raise ConfigError(
            "precision",
            "int8 needs the engine onnx, found torch; choose onnx, or bfloat16, which halves the items' rows",
        )


class Scorer:
    """Scores pairs of codes as `Bundle.score_indices` does, a user at a time, on the snapshot or on what live events made of it.

    Any number of threads may score at once. What a pair reads, of the user and of the item, is of one moment: all of a batch of events or
    nothing of it.

    Args:
        bundle: What is served.
        live: Its live state; None: the snapshot alone.
        engine: What runs the last part, PyTorch or ONNX Runtime.
        precision: `bfloat16` keeps the items' rows in half the memory; `int8` also multiplies weights of 8 bits (with `onnx`).
        kept: Folder where exported graphs are kept from one start to the next.
    """

    def __init__(
        self,
        bundle: Bundle,
        live: LiveNodes | None,
        engine: Runtime,
        precision: Precision,
        kept: Path | None = None,
    ):
        self._bundle, self._model, self._live = bundle, bundle.model, live
        self._graph = live or bundle.graph.latest
        self.tasks = bundle.tasks
        self._halves: Halves = self._model.halves(owners(bundle.graph.latest)).eval()
        self._groups = {
            "user": self._needed(self._halves.user_keys),
            "item": self._needed(self._halves.item_keys),
        }
        self._pairs = PairGather(bundle.graph.latest, live)
        self._pair_keys = frozenset() if self._halves.whole else self._halves.keys & self._pairs.widths.keys()
        self._late = self._halves.keys - self._pair_keys
        self._late_groups = self._needed(self._late)
        missed = [] if self._halves.whole else sorted(key for key in self._late if owner_of(key) == "pair")
        assert not missed, (
            f"PairGather must bring {missed}: columns of a pair that it does not know would be read of nobody"
        )
        self._version = 0 if live is None else live.version
        dtype = torch.float32 if precision == "float32" else torch.bfloat16
        self._items = ItemRows(self._item_rows, self.n_items, self._halves.width, dtype)
        self._regression, self._stds, self._means = (
            getattr(self._model, name).numpy() for name in ("regression", "stds", "means")
        )
        self._unknown = bundle.encoders.context_features.encode({}, 1)
        weights = "".join(bundle.manifest["checksums"][name] for name in ("model.safetensors", "spec.json"))
        self._steps: Halves | Sessions = (
            self._halves
            if engine == "torch"
            else Sessions(self._halves, *self._sample(), precision, kept, weights)
        )
        mixed = self._halves.mixed if isinstance(self._halves, FoldedHalves) else None
        # ONNX Runtime begins with the towers where rows can be mixed before it.
        self._towers = (
            (self._steps.towers, mixed) if mixed is not None and isinstance(self._steps, Sessions) else None
        )

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        live: LiveNodes | None = None,
        *,
        engine: Runtime = "onnx",
        precision: Precision = "float32",
        kept: Path | None = None,
    ) -> Scorer:
        """Compute what is kept an item, and make ready. Arguments as for the class.

        Raises:
            ConfigError: The engine has no such precision.
            MissingExtra: ONNX Runtime is not installed.
        """
        check_precision(engine, precision)
        with torch.inference_mode():
            return cls(bundle, live, engine, precision, kept)

    @property
    def n_items(self) -> int:
        """Items of the catalogue, those born live included."""
        return self._bundle.encoders.items.size if self._live is None else self._live.size("item")

    @property
    def nbytes(self) -> int:
        """Memory of what is kept an item."""
        return self._items.nbytes

    @torch.inference_mode()
    def score(
        self,
        user: int,
        items: NDArray[np.int64],
        context: Mapping[str, NDArray] | None = None,
        recalibrated: bool = True,
    ) -> NDArray[np.float32]:
        """Probability of each binary task and value of each regression.

        Args:
            user: A code, -1 where never seen.
            items: Codes likewise. Shape (B,).
            context: Encoded features, one row or B; None: all unknown.
            recalibrated: Undo the sampling of negatives.

        Returns:
            Shape (B, T).
        """
        context = self._unknown if context is None else context
        out = np.empty((len(items), len(self.tasks)), np.float32)
        row, known, version = None, Batch(), self._version
        for start in range(0, len(items), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            own = {name: values if len(values) == 1 else values[part] for name, values in context.items()}
            with self._reading():
                self.refresh()
                if row is None or version != self._version or any(len(values) > 1 for values in own.values()):
                    version = self._version
                    known = self._batch(
                        np.array([user]), np.array([-1]), own, self._groups["user"] | self._late_groups
                    )
                    row = self._steps.user({key: known[key] for key in self._halves.user_keys & known.keys()})
                late = self._late_batch(user, items[part], own, known)
                kept = self._kept(row, items[part])
            out[part] = self._rest(row, kept, late)  # the products, for which no event has to wait
        return self._values(out, items, recalibrated)

    @torch.inference_mode()
    def explain(
        self, user: int, item: int, context: Mapping[str, NDArray] | None = None, top: int = 8
    ) -> dict[str, Any]:
        """What carried a score, by codes: `tasks`, and of what the model reads `gates`, `macro` and `recents`. All plain numbers."""
        own = self._unknown if context is None else context
        with self._reading():
            batch = self._batch(np.array([user]), np.array([item]), own, self._model.needs)
        shown = {name: weights[0].tolist() for name, weights in self._model.explain(batch).items()}
        out: dict[str, Any] = {
            "tasks": dict(
                zip(self.tasks, self.score(user, np.array([item]), context)[0].tolist(), strict=True)
            )
        }
        if "gates" in shown:
            out["gates"] = dict(zip(self.tasks, shown["gates"], strict=True))
        orders = [name for name in ("u1", "u2", "i1", "i2") if name in shown]
        if orders:
            out["macro"] = {
                order: _heaviest(shown[order], batch[order][0].expm1().tolist(), top) for order in orders
            }
        lists = [name for name in ("recent_items", "recent_users") if name in shown]
        if lists:
            out["recents"] = {
                name.removeprefix("recent_"): _neighbours(batch, name, shown[name]) for name in lists
            }
        return out

    @torch.inference_mode()
    def refresh(self) -> None:
        """Compute again what is kept of items that live events have touched since."""
        if self._live is None or self._live.version == self._version:
            return
        with self._live.lock:
            version = self._live.version
            if version != self._version:
                if self._halves.width:
                    self._items.renew(
                        self._live.touched("item", self._version), self.n_items, self._item_rows
                    )
                self._version = version

    @torch.inference_mode()
    def rehearse(self, live: LiveNodes, users: NDArray[np.int64], items: NDArray[np.int64]) -> None:
        """Read nodes of another live state as those of its own are read, so that all of it is compiled. Codes, any shapes."""
        pairs = PairGather(self._bundle.graph.latest, live)
        for user in users:
            self._batch(np.full(len(items), user), items, self._unknown, self._model.needs, live)
            pairs(int(user), items, self._pair_keys)

    def _reading(self) -> Any:
        return nullcontext() if self._live is None else self._live.lock

    def _needed(self, keys: frozenset[str]) -> frozenset[str]:
        spec = self._model.spec
        return frozenset(
            group for group in self._model.needs if not keys.isdisjoint(batch_keys(spec, [group])[4:])
        )

    def _batch(
        self,
        users: NDArray[np.int64],
        items: NDArray[np.int64],
        context: Mapping[str, NDArray],
        groups: frozenset[str],
        live: LiveNodes | None = None,
    ) -> Batch:
        encoders = self._bundle.encoders
        inputs = assemble(
            live or self._graph, users, items, context, needs=groups, spec=self._model.spec,
            user_side=encoders.user_side, item_side=encoders.item_side,
        )  # fmt: skip
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in inputs.items()}

    def _item_rows(self, items: NDArray[np.int64]) -> Tensor:
        batch = self._batch(np.full(len(items), -1), items, {}, self._groups["item"] - {"context"})
        return self._halves.item({key: batch[key] for key in self._halves.item_keys & batch.keys()})

    def _late_batch(
        self, user: int, items: NDArray[np.int64], context: Mapping[str, NDArray], known: Batch
    ) -> Batch:
        """What `join` reads: the pair's columns, and what else is not summed ahead."""
        if not self._halves.keys:
            return {}
        if self._halves.whole:
            each = {
                name: np.broadcast_to(values, (len(items), *values.shape[1:]))
                for name, values in context.items()
            }
            return self._batch(np.full(len(items), user), items, each, self._model.needs)
        late: Batch = {}
        if self._late:
            others = self._batch(np.full(len(items), -1), items, {}, self._late_groups)
            late = {key: known[key] if owner_of(key) == "user" else others[key] for key in self._late}
        pairs = self._pairs(user, items, self._pair_keys)
        return late | {key: torch.from_numpy(values) for key, values in pairs.items()}

    def _kept(self, user: Tensor, items: NDArray[np.int64]) -> Tensor:
        """A copy of what is kept of the items; mixed with what the user adds where the towers begin with that."""
        if self._towers is not None:
            return self._items.mix(items, user, *self._towers[1])
        return self._items.take(items)

    def _rest(self, user: Tensor, kept: Tensor, late: Batch) -> NDArray[np.float32]:
        """Logits from what the user adds, `_kept` of the items, and what else is read. Shape (B, T)."""
        if self._towers is not None:
            return self._towers[0](kept).numpy()
        return self._steps.join(user, kept, late).numpy()

    def _values(
        self, raw: NDArray[np.float32], items: NDArray[np.int64], recalibrated: bool
    ) -> NDArray[np.float32]:
        """`RankingModel.in_units` and `Bundle.recalibrate` of logits."""
        values = np.where(self._regression, raw * self._stds + self._means, expit(raw))
        return self._bundle.recalibrate(values, items) if recalibrated else values

    def _sample(self) -> tuple[Batch, Batch]:
        """What a request reads: of the user, and of user and items together."""
        known = self._batch(
            np.array([-1]), np.array([-1]), self._unknown, self._groups["user"] | self._late_groups
        )
        late = self._late_batch(-1, np.array([-1, 0, 0]), self._unknown, known)
        return {key: known[key] for key in self._halves.user_keys & known.keys()}, late


def _heaviest(weights: list[float], edges: list[float], top: int) -> list[dict[str, float]]:
    order = sorted(range(len(weights)), key=lambda k: -weights[k])[:top]
    return [{"node": k, "weight": weights[k], "edge": edges[k]} for k in order if weights[k] > 0]


def _neighbours(batch: Batch, name: str, weights: list[float]) -> list[dict[str, float]]:
    rows = zip(batch[name][0].tolist(), batch[f"{name}_task_mask"][0].tolist(), weights, strict=True)
    return [{name[7:-1]: code, "code": done, "weight": weight} for code, done, weight in rows if code >= 0]
