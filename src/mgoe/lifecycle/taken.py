"""The exposures that a service has taken and that wait for no more labels: `mgoe exposures`, and for `mgoe
update`."""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from mgoe._util.files import atomic_file
from mgoe._util.tables import write_batches
from mgoe.bundle import Bundle
from mgoe.bundle.held import START, Mark, mark_of, read_held
from mgoe.data.waiting import longest_delay
from mgoe.errors import BundleError
from mgoe.serving import EventReader
from mgoe.serving.events.exposure_log import ExposureLog
from mgoe.serving.events.redis_exposures import open_exposures
from mgoe.serving.events.taken import taken_rows

logger = logging.getLogger(__name__)


def write_exposures(bundle: Path | str, state: Path | str, out: Path | str) -> int:
    """Write the exposures of a service that wait for no more labels as a log, in the columns of the bundle's.

    Args:
        bundle: A bundle of an exposure log.
        state: State folder of the service, or the address of its Redis.
        out: The Parquet file to write; one that is there is replaced.

    Returns:
        Number of exposures.

    Raises:
        MgoeError: The bundle is of an event log, there are no exposures, or `out` cannot be written.
    """
    opened = Bundle.open(bundle)
    if opened.settings.form != "exposures":
        raise BundleError(bundle, "must be of an exposure log, found one of an event log (data.form)")
    found = TakenExposures.of(opened, state)
    with atomic_file(Path(out)) as file:
        return replace(found, after=START).write(file)


@dataclass(frozen=True)
class TakenExposures:
    """Exposures of a service that wait for no more labels and that a bundle's graph lacks.

    Attributes:
        bundle: The bundle.
        log: Where the exposures are.
        after, upto: Marks between which they are.
    """

    bundle: Bundle
    log: ExposureLog
    after: Mark
    upto: Mark

    @classmethod
    def of(cls, bundle: Bundle, state: Path | str) -> Self:
        """Return the exposures of a service, by its state folder or Redis server.

        Raises:
            StoreError: The log is damaged, or does not continue where the bundle holds it.
        """
        log = open_exposures(state, make=False)
        held = mark_of(read_held(bundle.path), log.identity)
        log.check(held)
        settled = log.settled(longest_delay(bundle.settings.tasks))
        return cls(bundle, log, held, log.mark(settled) if settled > int(held.position or 0) else held)

    def write(self, file: Path) -> int:
        """Write them as a Parquet file, and return their number."""
        kinds, now = EventReader.of(self.bundle).kinds, time.time_ns() // 1000
        after, upto = (int(mark.position or 0) for mark in (self.after, self.upto))
        reader = taken_rows(self.log, self.bundle.settings, kinds, now, after, upto)
        rows = write_batches(reader, file)
        logger.info(f"{rows:,} exposures that have waited for their labels")
        return rows

    def forget(self) -> None:
        """Drop the exposures that the graph of the bundle already held."""
        self.log.forget(int(self.after.position or 0), longest_delay(self.bundle.settings.tasks))
