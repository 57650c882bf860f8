"""The rows that a service has taken: `mgoe exposures` and `mgoe events`, and exposures for `mgoe update`.

Exposures are taken once they wait for no more labels.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

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
from mgoe.serving.events.marked import DIGEST, NUMBER, with_marks
from mgoe.serving.events.stores import open_exposures
from mgoe.serving.events.taken import taken_rows

logger = logging.getLogger(__name__)


def write_exposures(
    bundle: Path | str, state: Path | str, out: Path | str, new: bool = False, now: int | None = None
) -> int:
    """Write the exposures of a service that wait for no more labels as a log, in the columns of the bundle's.

    Args:
        bundle: A bundle of an exposure log.
        state: State folder of the service, or the address of its Redis.
        out: The Parquet file to write; one that is there is replaced. It says which exposures it holds.
        new: Write only those that the bundle's graph lacks.
        now: As of when, in microseconds since 1970, for a service on a clock of its own; by default now.

    Returns:
        Number of exposures.

    Raises:
        MgoeError: The bundle is of an event log, there are no exposures, or `out` cannot be written.
    """
    opened = Bundle.open(bundle)
    if opened.settings.form != "exposures":
        raise BundleError(bundle, "must be of an exposure log, found one of an event log (data.form)")
    return write_settled(opened, state, Path(out), [read_held(opened.path)], new, now)


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
    moment = pa.timestamp("us", None if data.timezone == "UTC" else "UTC")
    columns = {data.user: reader.kinds["user"], data.item: reader.kinds["item"], data.time: moment}
    columns |= {data.behavior or "behavior": pa.string(), NUMBER: pa.int64(), DIGEST: pa.binary(16)}
    after = held if new else begin_of(log)
    for upto, event, counts in counted(log, reader):
        if event is not None and counts and upto.number > after.number:
            taken = upto.number, bytes.fromhex(upto.digest)
            row = (event.user, event.item, event.time, event.behavior, *taken)
            rows.append(dict(zip(columns, row, strict=True)))
    schema = with_marks(pa.schema(columns), log.identity, after, upto)
    with atomic_file(Path(out)) as file:
        pq.write_table(pa.Table.from_pylist(rows, schema), file)
    return len(rows)


def begin_of(log: EventLog) -> Mark:
    """Return the start of a log; where earlier events were dropped, the mark of the first that is left."""
    found = log.read(limit=1)
    whole = not found or chained(log.identity, found[0][1].encode()) == found[0][0].digest
    return START if whole else found[0][0]


def write_settled(
    bundle: Bundle,
    state: Path | str,
    out: Path,
    held: Sequence[Sources],
    new: bool = True,
    now: int | None = None,
) -> int:
    """Write the exposures of a service that wait for no more labels as a log, and return their number.

    Args:
        bundle: A bundle of an exposure log.
        state: State folder of the service, or the address of its Redis.
        out: The Parquet file to write.
        held: What the bundle holds, or what each of several bundles does.
        new: Leave out the exposures that one of them holds.
        now: As of when, in microseconds since 1970; by default the present.

    Raises:
        StoreError: The log is damaged, or does not continue where it is held.
    """
    log = open_exposures(state, make=False)
    for one in held:
        log.check(mark_of(one, log.identity))
    now = time.time_ns() // 1000 if now is None else now
    latest, settled = latest_mark(held, log.identity), log.settled(longest_delay(bundle.settings.tasks), now)
    after, upto = latest if new else log.begin, max(latest, log.mark(settled), key=lambda mark: mark.number)
    kinds = EventReader.of(bundle).kinds
    reader = taken_rows(log, bundle.settings, kinds, now, after.number, upto.number)
    schema = with_marks(reader.schema, log.identity, after, upto)
    with atomic_file(out) as file:
        rows = write_batches(pa.RecordBatchReader.from_batches(schema, reader), file)
    logger.info(f"{rows:,} exposures that have waited for their labels")
    return rows
