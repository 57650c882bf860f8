"""What users of MacGNN run to prepare a log: its way of working, rewritten.

Dictionaries of neighbours filled in Python, a sparse matrix of counts, sparse products with the memberships
made dense, k-means on the users' dense 1st-order rows, then a loop over a data frame's rows that joins, for
each sample, user and item, four K-vectors, two lists of the 20 most recent neighbours and the label into one
vector of doubles.

In its favour: items come with their macro nodes (its data sets have a category; here the planted
communities), which cost nothing; there is one history, the whole log, where its scripts prepare a second one
for the test rows; there are no negatives, though a log without exposures needs them and each is a row more;
the result is not written to disk, and is dropped a part at a time, so that it fits in memory. It merges no
tasks. Reading the log and numbering its ids counts; the start of Python does not.

As a command: print the seconds of all before the loop, and of the loop over the last fifth of the rows and
over all. The last fifth is what its own protocol makes samples of; all rows is what training on the log
takes."""

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize

from mgoe.simulation import Truth

RECENTS = 20
_PARTS = 5
"""Rows are prepared in as many parts; the last is what its own protocol prepares."""
Lists = dict[int, list[int]]


def prepare(folder: Path, k: int) -> dict[str, float]:
    """Prepare a simulated log as MacGNN does.

    Args:
        folder: The simulated log.
        k: Macro nodes of users.

    Returns:
        Seconds of `graph` (all before the loop), and of the loop over the `last_fifth` and over `all` rows.
    """
    truth = Truth.open(folder)
    started = time.perf_counter()
    rows, item_ids = read(folder / "events")
    before = time.perf_counter()
    item_macro = truth.items.community[truth.item_ids.index(item_ids)]  # given, as a category is
    started += time.perf_counter() - before
    by_user, by_item = rows.sort_values(["user", "time"]), rows.sort_values(["item", "time"])
    items_of, users_of = neighbors(by_user, "user", "item"), neighbors(by_item, "item", "user")
    edges = macro_edges(items_of, len(users_of), item_macro, k)
    recent = recents(items_of), recents(users_of)
    seconds = {"graph": time.perf_counter() - started}
    ends = np.linspace(0, len(rows), _PARTS + 1).astype(int)
    took = [loop(rows.iloc[start:end], edges, recent) for start, end in itertools.pairwise(ends)]
    return seconds | {"last_fifth": took[-1], "all": sum(took)}


def read(log: Path) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Events by time with users and items numbered, and the items' ids by number."""
    table = pq.read_table(log, columns=["user_id", "item_id", "timestamp"])
    user, _ = pd.factorize(table["user_id"].to_numpy())
    item, item_ids = pd.factorize(table["item_id"].to_numpy())
    rows = pd.DataFrame({"user": user, "item": item, "label": 1, "time": table["timestamp"].to_numpy()})
    return rows.sort_values("time", ignore_index=True), item_ids


def neighbors(rows: pd.DataFrame, node: str, other: str) -> Lists:
    """Neighbours of each node in the order of time, repeats included."""
    return {number: group[other].tolist() for number, group in rows.groupby(node)}


def macro_edges(
    items_of: Lists, items: int, item_macro: NDArray[np.integer], k: int
) -> tuple[NDArray[np.float64], ...]:
    """Counts of neighbours a macro node over one and over two steps.

    Returns:
        Of users, then of items: 1st and 2nd order. Shapes (U, Ki), (U, Ku), (I, Ku), (I, Ki).
    """
    user, item = [], []
    for number, found in items_of.items():
        for one in found:
            user.append(number)
            item.append(one)
    counts = sp.csr_matrix((np.ones(len(user)), (user, item)), shape=(len(items_of), items))
    of_items = _membership(item_macro)
    first = np.asarray((counts * of_items).todense())
    clusters = KMeans(n_clusters=k, n_init=1, random_state=0).fit(normalize(first))
    of_users = _membership(clusters.labels_)
    products = counts * (counts.T * of_users), counts.T * of_users, counts.T * (counts * of_items)
    second, item_first, item_second = (np.asarray(product.todense()) for product in products)
    return first, second, item_first, item_second


def _membership(macro: NDArray[np.integer]) -> sp.csr_matrix:
    return sp.csr_matrix((np.ones(len(macro)), (np.arange(len(macro)), macro)))


def recents(lists: Lists) -> Lists:
    """The latest neighbours of each node."""
    return {node: found[-RECENTS:] for node, found in lists.items()}


def loop(rows: pd.DataFrame, edges: tuple[NDArray[np.float64], ...], recent: tuple[Lists, Lists]) -> float:
    """Seconds to join the vectors of every row, one by one, into a matrix of samples."""
    started = time.perf_counter()
    rows = rows[["user", "item", "label"]]
    data = []
    for _, row in rows.iterrows():
        data.append(_sample(row.iloc[0], row.iloc[1], row.iloc[2], edges, recent))
    np.array(data)
    return time.perf_counter() - started


def _sample(
    user: int, item: int, label: int, edges: tuple[NDArray[np.float64], ...], recent: tuple[Lists, Lists]
) -> NDArray[np.float64]:
    user_first, user_second, item_first, item_second = edges
    items, users = _padded(recent[0][user]), _padded(recent[1][item])
    parts = (
        [user],
        user_first[user],
        user_second[user],
        items,
        [item],
        item_first[item],
        item_second[item],
        users,
        [label],
    )
    return np.concatenate(parts)


def _padded(nodes: list[int]) -> list[int]:
    return nodes + [0] * (RECENTS - len(nodes))


def main() -> None:
    """Prepare a log and print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--macro-nodes", type=int, default=100)
    options = parser.parse_args()
    print(json.dumps(prepare(options.log, options.macro_nodes)))


if __name__ == "__main__":
    main()
