"""The rows that neither of two bundles has learned from, as examples of each: what a release test reads."""

from dataclasses import replace
from pathlib import Path

from mgoe.bundle import Bundle
from mgoe.data import Examples
from mgoe.lifecycle.acceptance import missing
from mgoe.lifecycle.new_rows import NewRows, Sources, learned_until

Window = tuple[Examples, Examples]
"""The same rows as examples of a candidate and of the current bundle."""


def later_rows(
    candidate: Bundle,
    current: Bundle,
    sources: Sources,
    folder: Path,
    trains: bool = False,
) -> NewRows:
    """Return the rows that one of two bundles has not learned from.

    A candidate with other tasks or inputs, which no window can approve, need not be able to read them: they
    are then read as the current bundle reads them.

    Args:
        candidate: Made from the current bundle, or later.
        current: What is served.
        sources: Where the rows are; those of files may have been learned by both.
        folder: An empty folder, where the rows are kept while they are read.
        trains: Whether rows have weights, as in training.

    Raises:
        MgoeError: The rows cannot be read, or break a rule.

    Example:
        >>> later_rows(bundle, bundle, Sources(str(log)), Path()).parts  # it has learned from all
        []
    """
    reader = current if missing(candidate, current) else candidate
    after = min(learned_until(bundle) for bundle in (candidate, current)) if sources.files else None
    return NewRows.of(reader, sources, folder, trains=trains, after=after)


def window_of(rows: NewRows, candidate: Bundle, current: Bundle) -> Window | None:
    """Return the rows that neither bundle has learned from, as examples of each; None if there are none.

    Args:
        rows: What `later_rows` returned for these bundles.
        candidate: Made from the current bundle, or later.
        current: What is served.

    Raises:
        DataError: The rows do no task.

    Example:
        >>> new = later_rows(bundle, bundle, Sources(str(log)), Path())  # it has learned from all
        >>> window_of(new, bundle, bundle) is None
        True
    """
    new = rows.after(max(learned_until(bundle) for bundle in (candidate, current)), "window")
    ours, theirs = new.examples(), replace(new, bundle=current).examples()
    return None if ours is None or theirs is None else (ours, theirs)
