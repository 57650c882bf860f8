"""Retrieval: what generators read beside a view, in a folder, and the mix of what they give."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, get_args

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import mapped, save_arrays
from mgoe._util.files import atomic_folder, read_of_format, write_json
from mgoe.config import RetrievalSettings, check_asked, quotas_of
from mgoe.errors import BundleError
from mgoe.features import View
from mgoe.graph import Snapshot
from mgoe.graph.links import ItemLinks
from mgoe.retrieval.blend import Blend, link_signals, repeat_signals
from mgoe.retrieval.generators import GENERATORS, Asked, Stored, find_generators
from mgoe.retrieval.history import HALF_LIFE, Done, OwnItems, latest_of, latest_pairs, median_age, own_items
from mgoe.retrieval.links import Former, Kind, freshness, item_links
from mgoe.retrieval.mix import apportioned, is_among, mixed
from mgoe.retrieval.popular import SharedLists, repeat_rates, shared_lists
from mgoe.retrieval.sketch_index import FormerIndex, SketchIndex, write_index

FORMAT = 3
MANIFEST = "retrieval.json"
SKETCH = "sketch.faiss"
QUOTAS: dict[str, int] = {
    "own": 40,
    "item_to_item": 150,
    "swing": 100,
    "sketch": 80,
    "unseen": 40,
    "macro": 50,
    "recent": 40,
    "popular": 40,
}
"""Default quotas, in proportion; `unseen` has one only where content places items."""


@dataclass(frozen=True)
class Retrieval:
    """Candidates of users, from lists that were computed from one snapshot.

    Attributes:
        path: Its folder.
        quotas: Items of each generator in the mix.
        neighbors: Most links of an item.
        stored: What generators read beside a view, memory-mapped.
        blend: How lists are ordered; None where the model alone orders them.
        placed: Vectors that updates have placed in the cells of the sketch's index, see `write_index`.

    Example:
        >>> from mgoe.config import RetrievalSettings, check_asked, quotas_of
        >>> found = Retrieval.build(bundle.view, folder / "retrieval", RetrievalSettings(candidates=20))
        >>> len(found.candidates(bundle.view, user=0))
        20
    """

    path: Path
    quotas: Mapping[str, int]
    neighbors: int
    stored: Stored
    blend: Blend | None = None
    placed: int = 0

    @classmethod
    def build(
        cls,
        view: View,
        folder: Path,
        settings: RetrievalSettings,
        former: tuple[Snapshot, "Retrieval"] | None = None,
        blend: Blend | None = None,
    ) -> Self:
        """Compute everything from the snapshot of a view, and write the folder atomically.

        Args:
            view: Its live changes are not read.
            folder: Folder to write; an existing one is replaced.
            settings: Number of candidates, quotas, and number of links.
            former: What was computed from an earlier snapshot, whose nodes keep their indices. Links that
                nothing changed for are copied; they do not depend on it. The cells of the sketch's index may
                stay as they were, see `write_index`.
            blend: How lists are ordered; None if the model alone orders them.

        Raises:
            OutputError: The folder cannot be written.
            ConfigError: A generator of an extension cannot be imported.
        """
        find_generators(quotas_of(settings))
        with atomic_folder(folder) as unfinished:
            pairs, held, index = latest_pairs(view.snapshot), dict[Kind, Former](), None
            if former is not None:
                vectors, file = former[0].arrays["item_vectors"], former[1].path / SKETCH
                index = FormerIndex(vectors, file, former[1].placed)
            if former is not None and former[1].neighbors == settings.neighbors:
                rows, stored = latest_of(former[0]), former[1].stored
                held = {kind: Former(rows, links) for kind, links in stored.links.items()}
            for kind in get_args(Kind):
                links = item_links(pairs, kind, settings.neighbors, former=held.get(kind))
                named = {f"{kind}.{name}": array for name, array in links._asdict().items()}
                save_arrays(unfinished, named)
            each = {"fresh": freshness(pairs, view.snapshot), "repeated": repeat_rates(view.snapshot)}
            save_arrays(unfinished, each)
            save_arrays(unfinished, shared_lists(view.snapshot)._asdict())
            placed = write_index(view.snapshot.arrays["item_vectors"], unfinished / SKETCH, index)
            places = "item" in view.snapshot.placed
            usual = {name: quota for name, quota in QUOTAS.items() if places or name != "unseen"}
            quotas = apportioned(settings.quotas or usual, settings.candidates)
            manifest = {"format": FORMAT, "quotas": quotas, "neighbors": settings.neighbors}
            manifest |= {"blend": None if blend is None else blend._asdict(), "placed": placed}
            half_life = HALF_LIFE * median_age(view.snapshot)
            write_json(unfinished / MANIFEST, manifest | {"half_life": half_life})
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a folder that `build` wrote, memory-mapped.

        Raises:
            BundleError: The folder is damaged, of another version, or names a generator that would be
                imported here, see `check_asked`.
        """
        try:
            missing, fix = f"holds no {MANIFEST}; write the bundle again", "write the bundle again"
            manifest = read_of_format(folder / MANIFEST, "retrieval", FORMAT, BundleError, missing, fix)
            links: dict[Kind, ItemLinks] = {
                kind: ItemLinks(*(mapped(folder / f"{kind}.{name}.npy") for name in ItemLinks._fields))
                for kind in get_args(Kind)
            }
            lists = SharedLists(*(mapped(folder / f"{name}.npy") for name in SharedLists._fields))
            sketch, half_life = SketchIndex(folder / SKETCH), float(manifest["half_life"])
            fresh, repeated = (mapped(folder / f"{name}.npy") for name in ("fresh", "repeated"))
            stored = Stored(links, fresh, half_life, lists, sketch, repeated)
            blend = None if manifest["blend"] is None else Blend(**manifest["blend"])
            check_asked("mgoe.generators", GENERATORS, manifest["quotas"], folder)
            return cls(folder, manifest["quotas"], manifest["neighbors"], stored, blend, manifest["placed"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError) as error:
            raise BundleError(folder, f"cannot be read ({error}); write the bundle again") from None

    def own_items(self, view: View, user: int, later: Done | None = None) -> OwnItems:
        """Return the items of a user, which candidates and signals are found from.

        Args:
            view, user: As for `generate`.
            later: What the user did after the view, in place of live changes.
        """
        return own_items(view, user, self.stored.half_life, later)

    def signals(
        self,
        own: OwnItems,
        items: NDArray[np.int64],
        log_odds: NDArray[np.floating],
        sampling: NDArray[np.floating],
    ) -> NDArray[np.float64]:
        """Return what a blend reads of items for a user.

        Args:
            own: The user's items.
            items: By index, each once. Shape (B,).
            log_odds: That the user does anything on them, with the sampling of negatives undone. Shape (B,).
            sampling: What undoing it added. Shape (B,).

        Returns:
            Shape (B, 7), see `Blend`.
        """
        links = link_signals(self.stored.links["cosine"], self.stored.fresh, own, items)
        repeats = repeat_signals(self.stored.repeated, own, items)
        return np.column_stack([log_odds, sampling, links, repeats]).astype(np.float64)

    def generate(self, view: View, user: int, n: int) -> dict[str, NDArray[np.int64]]:
        """Return the best n items of every generator for a user, best first.

        Args:
            view: With the snapshot that this was built from, and live changes.
            user: By index; of an unknown one only popular and recent items are known.
            n: Most items of a generator.
        """
        asked = self._asked(view, user, self.own_items(view, user))
        return {
            name: generator(self.stored, asked, n) for name, generator in find_generators(self.quotas).items()
        }

    def candidates(
        self,
        view: View,
        user: int,
        n: int | None = None,
        without: NDArray[np.int64] | None = None,
        own: OwnItems | None = None,
    ) -> NDArray[np.int64]:
        """Return the candidates of a user: n distinct items of the generators with a quota; see `mixed`.

        Args:
            view, user: As for `generate`.
            n: Number of candidates; the sum of the quotas by default.
            without: Items to leave out, rising; other generators fill the quotas of those that gave them.
            own: The user's items; by default those in the view.
        """
        n = sum(self.quotas.values()) if n is None else n
        asked = self._asked(view, user, self.own_items(view, user) if own is None else own)
        lists = {
            name: generator(self.stored, asked, n)
            for name, generator in find_generators(self.quotas).items()
            if self.quotas.get(name)
        }
        if without is not None:
            lists = {name: items[~is_among(items, without)] for name, items in lists.items()}
        return mixed(lists, self.quotas, n)

    def _asked(self, view: View, user: int, own: OwnItems) -> Asked:
        return Asked(view, view.known("user", np.array([user])), own)
