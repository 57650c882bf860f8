"""The rows that a service has taken: `mgoe exposures` and `mgoe events`, and exposures for `mgoe update`.

Exposures are taken once they wait for no more labels.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from mgoe._util.files import atomic_file
from mgoe._util.tables import write_batches
from mgoe.bundle import Bundle
from mgoe.bundle.held import START, Mark, Sources, latest_mark, mark_of, read_held
from mgoe.data.waiting import longest_delay
from mgoe.errors import BundleError
from mgoe.lifecycle.live_events import counted
from mgoe.serving import EventLog, EventReader, open_events
from mgoe.serving.events.chain import chained
from mgoe.serving.events.exposure_log import ExposureLog
from mgoe.serving.events.marked import DIGEST, NUMBER, with_marks
from mgoe.serving.events.redis_exposures import open_exposures
from mgoe.serving.events.taken import taken_rows

logger = logging.getLogger(__name__)


def write_exposures(bundle: Path | str, state: Path | str, out: Path | str, new: bool = False) -> int:
    """Write the exposures of a service that wait for no more labels as a log, in the columns of the bundle's.

    Args:
        bundle: A bundle of an exposure log.
        state: State folder of the service, or the address of its Redis.
        out: The Parquet file to write; one that is there is replaced. It says which exposures it holds.
        new: Write only those that the bundle's graph lacks.

    Returns:
        Number of exposures.

    Raises:
        MgoeError: The bundle is of an event log, there are no exposures, or `out` cannot be written.
    """
    opened = Bundle.open(bundle)
    if opened.settings.form != "exposures":
        raise BundleError(bundle, "must be of an exposure log, found one of an event log (data.form)")
    found = TakenExposures.of(opened, state, [read_held(opened.path)])
    with atomic_file(Path(out)) as file:
        return (found if new else replace(found, after=found.log.begin)).write(file)


def write_events(bundle: Path | str, events: Path | str, out: Path | str, new: bool = False) -> int:
    """Write the live events of a service as a log, in the columns of the bundle's, each once.

    Args:
        bundle: A bundle of an event log.
        events: State folder or Redis server of the service.
        out: The Parquet file to write; one that is there is replaced. It says which events it holds.
        new: Write only those that the bundle's graph lacks.

    Returns:
        Number of events.

    Raises:
        MgoeError: The bundle is of an exposure log, the log cannot be read, or `out` cannot be written.
    """
    opened, log = Bundle.open(bundle), open_events(events, make=False)
    if opened.settings.form != "events":
        raise BundleError(bundle, "must be of an event log, found one of an exposure log (data.form)")
    held = mark_of(read_held(opened.path), log.identity)
    log.check(held)
    data, reader, rows, upto = opened.settings.data, EventReader.of(opened), [], held
    after = held if new else begin_of(log)
    for upto, event, counts in counted(log, reader):
        if event is not None and counts and upto.number > after.number:
            record = (event.user, event.item, event.time, event.behavior)
            rows.append((*record, upto.number, bytes.fromhex(upto.digest)))
    moment = pa.timestamp("us", None if data.timezone == "UTC" else "UTC")
    columns = {data.user: reader.kinds["user"], data.item: reader.kinds["item"], data.time: moment}
    columns |= {data.behavior or "behavior": pa.string(), NUMBER: pa.int64(), DIGEST: pa.binary(16)}
    schema = with_marks(pa.schema(columns), log.identity, after, upto)
    values = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(one, field.type) for one, field in zip(values, schema, strict=True)]
    with atomic_file(Path(out)) as file:
        pq.write_table(pa.table(arrays, schema=schema), file)
    return len(rows)


def begin_of(log: EventLog) -> Mark:
    """Return the start of a log; where earlier events were dropped, the mark of the first that is left."""
    found = log.read(limit=1)
    whole = not found or chained(log.identity, found[0][1].encode()) == found[0][0].digest
    return START if whole else found[0][0]


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
    def of(cls, bundle: Bundle, state: Path | str, held: Sequence[Sources]) -> Self:
        """Return the exposures of a service, by its state folder or Redis server.

        Args:
            bundle: The bundle.
            state: The folder.
            held: What the bundle holds, or what each of several bundles does; exposures that one holds are
                left out.

        Raises:
            StoreError: The log is damaged, or does not continue where it is held.
        """
        log = open_exposures(state, make=False)
        for one in held:
            log.check(mark_of(one, log.identity))
        after = latest_mark(held, log.identity)
        settled = log.mark(log.settled(longest_delay(bundle.settings.tasks)))
        return cls(bundle, log, after, max(after, settled, key=lambda mark: mark.number))

    def write(self, file: Path) -> int:
        """Write them as a Parquet file, and return their number."""
        kinds, now = EventReader.of(self.bundle).kinds, time.time_ns() // 1000
        after, upto = self.after.number, self.upto.number
        reader = taken_rows(self.log, self.bundle.settings, kinds, now, after, upto)
        schema = with_marks(reader.schema, self.log.identity, self.after, self.upto)
        rows = write_batches(pa.RecordBatchReader.from_batches(schema, reader), file)
        logger.info(f"{rows:,} exposures that have waited for their labels")
        return rows

    def forget(self) -> None:
        """Drop the exposures that the graph of the bundle already held."""
        self.log.forget(self.after.number, longest_delay(self.bundle.settings.tasks))
