"""The truth behind a simulated log: communities of users and items, their tastes, and how these change.

On day d the affinities of a behaviour are cos(a) A + sin(a) A', with a = drift x 90 degrees x d / (days - 1):
equally large on every day, and less and less like those of the first day. The popularity of an item changes
in the same way: it is a normal score, turned into a popularity that follows Zipf's law.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from mgoe.config import check_settings
from mgoe.errors import DataError
from mgoe.simulation.settings import WorldSettings

DAY = np.timedelta64(1, "D")
_ODD = 0x9E3779B1


@dataclass(frozen=True)
class Ids:
    """Ids that look like those of a shop: integers with gaps, in an uninformative order.

    The id of an index is first + index x odd number modulo a power of two, which its inverse reverts
    without a table.

    Attributes:
        count: Number of ids.
        first: Smallest possible id.
    """

    count: int
    first: int

    @property
    def _bits(self) -> int:
        return max(20, (16 * self.count - 1).bit_length())

    def of(self, index: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the ids of indices. Same shape."""
        return self.first + ((index.astype(np.int64) * _ODD) & (2**self._bits - 1))

    def index(self, ids: ArrayLike) -> NDArray[np.int64]:
        """Return the indices of ids, -1 where there is no such id. Same shape."""
        rest = np.asarray(ids, np.int64) - self.first
        modulus = 2**self._bits
        # the product may exceed 2^63 and wrap; its low bits stay correct
        product = rest.view(np.uint64) * np.uint64(pow(_ODD, -1, modulus))
        index = (product & np.uint64(modulus - 1)).view(np.int64)
        return np.where((rest >= 0) & (rest < modulus) & (index < self.count), index, -1)


@dataclass(frozen=True)
class Nodes:
    """All users, or all items, in the order of their communities.

    Attributes:
        community: Shape (n,).
        arrival: First day. Shape (n,).
        bias: Own propensity or quality per behaviour, and for the stay, in logits. Shape (n, T + 1).
    """

    community: NDArray[np.int16]
    arrival: NDArray[np.int16]
    bias: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.community)

    def offsets(self, communities: int) -> NDArray[np.int64]:
        """Return where each community starts, and where the last one ends. Shape (communities + 1,)."""
        return np.searchsorted(self.community, np.arange(communities + 1))


@dataclass(frozen=True)
class Truth:
    """A world, drawn or reopened.

    Attributes:
        settings: Settings from which it was drawn.
        users: Users.
        items: Items.
        activity: Relative number of exposures of a user. Shape (U,).
        taste: Normal scores of popularity: of the first day, and those it changes to. Shape (2, I).
        affinity: The same two of each behaviour, and of the stay last, in each scenario. Shape (2, T + 1,
            scenarios, user communities, item communities).
        device: Effect of a device, in logits. Shape (T, devices).
        intercept: Logit at average affinity; for the stay, logarithm of the median. Shape (T + 1,).

    Example:
        >>> from mgoe.simulation import WorldSettings, make_truth
        >>> few = {"users": 30, "items": 20, "exposures": 300, "days": 5}
        >>> small = WorldSettings(**few, user_communities=2, item_communities=2)
        >>> make_truth(small).popularity(day=0).shape
        (20,)
    """

    settings: WorldSettings
    users: Nodes
    items: Nodes
    activity: NDArray[np.float32]
    taste: NDArray[np.float32]
    affinity: NDArray[np.float32]
    device: NDArray[np.float64]
    intercept: NDArray[np.float64]

    @cached_property
    def user_ids(self) -> Ids:
        return Ids(len(self.users), 10_000_000)

    @cached_property
    def item_ids(self) -> Ids:
        return Ids(len(self.items), 500_000)

    def phases(self, drift: float, day: ArrayLike) -> NDArray[np.float32]:
        """Return the weights, on given days, of what was on the first day and of what it drifts to.

        Shape `(2, *days)`.
        """
        angle = drift * np.pi / 2 * np.asarray(day) / max(1, self.settings.days - 1)
        return np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32)

    def logits(self, day: int) -> NDArray[np.float32]:
        """Return the logit of each behaviour, and the log stay, between communities.

        Shape (scenarios, user communities, item communities, T + 1).
        """
        affinity = np.tensordot(self.phases(self.settings.affinity_drift, day), self.affinity, 1)
        return np.ascontiguousarray(np.moveaxis(affinity, 0, -1) + self.intercept, np.float32)

    def popularity(self, day: int) -> NDArray[np.float64]:
        """Return how often an item is shown regardless of taste, relative to others; 0 before it arrives.
        Shape (I,)."""
        score = self.phases(self.settings.popularity_drift, day) @ self.taste
        return np.where(
            self.items.arrival <= day, ndtr(-score.astype(np.float64)) ** -self.settings.popularity, 0.0
        )

    def pages(self, popularity: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the part of a page that each item takes if popular items are shown first.

        A page is the interval from 0 to 1. An item's part has its share of the popularity as length, and
        starts behind all more popular items. Within it a position is random, so that positions are equally
        frequent where exposures follow popularity alone.

        Returns:
            Start and length. Shape (2, I).
        """
        order = np.argsort(-popularity, kind="stable")
        share = popularity / popularity.sum()
        start = np.empty_like(share)
        start[order] = np.cumsum(share[order]) - share[order]
        return np.stack([start, share])

    def aim(self, day: int, popularity: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of each user community's exposures that goes to each item community.

        They are aimed at the tastes of the first scenario, wherever they are shown. Shape (user communities,
        item communities).
        """
        s = self.settings
        mass = np.add.reduceat(popularity, self.items.offsets(s.item_communities)[:-1])
        mass /= mass.sum()
        first = self.affinity[:, 0, 0].astype(np.float64)
        tastes = np.tensordot(self.phases(s.affinity_drift, day), first, 1)
        aimed = mass * np.exp(s.targeting * tastes)
        return (1 - s.personalized) * mass + s.personalized * aimed / aimed.sum(1, keepdims=True)

    @cached_property
    def day_rows(self) -> NDArray[np.int64]:
        """Exposures of each day, spread over all users that have arrived. Shape (days,)."""
        s = self.settings
        here = np.bincount(self.users.arrival, self.activity, s.days).cumsum()
        return np.diff(np.floor(here.cumsum() / here.sum() * s.exposures + 0.5).astype(np.int64), prepend=0)

    def days(self, times: ArrayLike) -> NDArray[np.int64]:
        """Return the day of this world that contains each time, or the nearest day. Same shape."""
        day = (np.asarray(times, "datetime64[us]") - np.datetime64(self.settings.start, "us")) // DAY
        return np.clip(day.astype(np.int64), 0, self.settings.days - 1)

    def indices(self, users: ArrayLike, items: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the indices of users and of items.

        Raises:
            DataError: An id is not of this world.
        """
        return _index("users", self.user_ids, users), _index("items", self.item_ids, items)

    def save(self, folder: Path) -> None:
        """Write the truth as JSON and Parquet."""
        folder.mkdir(parents=True, exist_ok=True)
        names = [*self.settings.names, "stay"]
        taste = {"taste_first": self.taste[0], "taste_last": self.taste[1]}
        for side, nodes, ids, own in (
            ("user", self.users, self.user_ids, {"activity": self.activity}),
            ("item", self.items, self.item_ids, taste),
        ):
            columns = {
                f"{side}_id": ids.of(np.arange(len(nodes))),
                "community": nodes.community,
                "arrival_day": nodes.arrival,
                **own,
                **{f"bias_{name}": nodes.bias[:, t] for t, name in enumerate(names)},
            }
            pq.write_table(pa.table(columns), folder / f"{side}s.parquet", compression="zstd")
        phase, t, scenario, user, item = np.indices(self.affinity.shape, np.int16).reshape(5, -1)
        columns = {
            "phase": phase,
            "behavior": pa.DictionaryArray.from_arrays(t.astype(np.int8), names),
            "scenario": scenario,
            "user_community": user,
            "item_community": item,
            "affinity": self.affinity.ravel(),
        }
        pq.write_table(pa.table(columns), folder / "affinity.parquet", compression="zstd")
        world = {
            "settings": self.settings.model_dump(mode="json"),
            "device": self.device.tolist(),
            "intercept": self.intercept.tolist(),
        }
        (folder / "world.json").write_text(json.dumps(world, indent=1))

    @classmethod
    def open(cls, path: Path | str) -> Truth:
        """Reopen the truth of a simulated log.

        Args:
            path: The folder that `simulate` wrote, or its `truth`.

        Raises:
            DataError: There is no truth, or it cannot be read.
        """
        path = Path(path)
        path = path / "truth" if (path / "truth").is_dir() else path
        try:
            world = json.loads((path / "world.json").read_text())
            settings = check_settings(WorldSettings, world["settings"], path / "world.json")
            users, items, affinity = (
                pq.read_table(path / f"{name}.parquet") for name in ("users", "items", "affinity")
            )
            communities = settings.user_communities, settings.item_communities
            shape = (2, len(settings.names) + 1, len(settings.scenario_shares), *communities)
            return cls(
                settings,
                _nodes(users, settings),
                _nodes(items, settings),
                users["activity"].to_numpy(),
                np.stack([items[name].to_numpy() for name in ("taste_first", "taste_last")]),
                affinity["affinity"].to_numpy().reshape(shape),
                np.array(world["device"]),
                np.array(world["intercept"]),
            )
        except FileNotFoundError:
            raise DataError(
                path,
                "holds no truth of a simulated log (world.json and its tables); `mgoe simulate` writes one",
            ) from None
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise DataError(path, f"the truth cannot be read ({error}); simulate the log again") from None


def position_losses(truth: Truth) -> NDArray[np.float64]:
    """Return the logits that the first behaviour loses at each position. Shape (positions,)."""
    return truth.settings.position_effect * np.log1p(np.arange(truth.settings.positions))


def looks(truth: Truth) -> NDArray[np.float64]:
    """Return the probability that a user looks at each position. Shape (positions,)."""
    return np.arange(1.0, truth.settings.positions + 1) ** -truth.settings.examination


def _index(name: str, known: Ids, ids: ArrayLike) -> NDArray[np.int64]:
    """Return the indices of ids, and refuse unknown ids."""
    rule, fix = "every id must be of this simulated world", "open the log's own truth"
    try:
        index = known.index(ids)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(name, f"{rule}, with integers as ids, found others ({error}); {fix}") from None
    if (index < 0).any():
        raise DataError(name, f"{rule}, found {np.asarray(ids)[index < 0][0]}; {fix}")
    return index


def _nodes(table: pa.Table, settings: WorldSettings) -> Nodes:
    return Nodes(
        table["community"].to_numpy(),
        table["arrival_day"].to_numpy(),
        np.stack([table[f"bias_{name}"].to_numpy() for name in (*settings.names, "stay")], 1),
    )
