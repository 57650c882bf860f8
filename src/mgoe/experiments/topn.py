"""Top-N lists of a comparison: every finished cell and every baseline is measured, each in a process, and so
are the lists of a simulated world's own truth, which no model can beat except by luck.
"""

import logging
from collections.abc import Sequence
from contextlib import closing

from mgoe.experiments.plan import Cell, Plan
from mgoe.work.node import Node
from mgoe.work.store import Store

logger = logging.getLogger(__name__)


def measure_topn(plan: Plan, cells: Sequence[Cell], store: Store, until: float | None) -> dict[str, str]:
    """Measure the lists of finished cells, of baselines and of bounds.

    What cannot be measured has no figure, and the same command tries it again.

    Args:
        plan: The comparison.
        cells: The chosen cells.
        store: All that they are made of, and their lists.
        until: `time.monotonic()` after which nothing begins.

    Returns:
        Why lists could not be measured, by title.
    """
    lists = unmeasured(plan, cells, store)
    if not lists:
        return {}
    logger.info(f"measuring the lists of {len(lists)} models and baselines")
    failed, left = {}, [node.title for node in lists]
    with closing(store.bring(lists, plan.settings.jobs, plan.threads, until)) as ended:
        for node, outcome in ended:
            left.remove(node.title)
            if outcome.failed:
                failed[node.title] = outcome.failed
            how = f"failed: {outcome.failed}" if outcome.failed else outcome.value
            logger.info(f"  {node.title}: {how}")
    if left:
        logger.info(f"not measured yet: {'; '.join(left)}; the same command resumes")
    return failed


def unmeasured(plan: Plan, cells: Sequence[Cell], store: Store) -> list[Node]:
    """Return the lists that are not measured yet and whose data are here, those of models first."""
    of_models = {cell.log.lists(cell.variant.name, cell.seed): cell.done for cell in cells}
    prepared = {
        cell.log.path / "topn"
        for cell in cells
        for seed in plan.settings.seeds
        if (cell.log.stage(seed) / "data").exists()
    }
    found = [
        node
        for node in store.nodes.values()
        if node.kind == "lists"
        and not node.finished
        and of_models.get(node.path, node.path.parents[1] in prepared)
    ]
    return sorted(found, key=lambda node: node.path not in of_models)
