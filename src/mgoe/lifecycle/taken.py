"""Rows that a service has taken, as files: `mgoe log export`, and exposures for `mgoe update`.

Exposures are taken once they wait for no more labels.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa

from mgoe._util.files import atomic_file
from mgoe._util.tables import write_batches
from mgoe.bundle import Bundle
from mgoe.bundle.held import Mark, Sources, latest_mark, mark_of, read_held
from mgoe.data.waiting import longest_delay
from mgoe.errors import BundleError
from mgoe.lifecycle.live_events import counted
from mgoe.serving import EventReader, ServiceLog, open_log
from mgoe.serving.events.chain import Kind
from mgoe.serving.events.marked import DIGEST, NUMBER, with_marks
from mgoe.serving.events.taken import taken_rows

logger = logging.getLogger(__name__)

Form = Literal["events", "exposures"]
"""What rows are, as `data.form` says it."""
KINDS: dict[Form, Kind] = {"events": Kind.EVENT, "exposures": Kind.EXPOSURE}


def export(
    bundle: Path | str,
    state: Path | str,
    out: Path | str,
    kind: Form,
    new: bool = False,
    now: int | None = None,
) -> int:
    """Write what a service has taken as a log, in the columns of the bundle's, and return the number of rows.

    Args:
        bundle: A bundle of a log of that kind.
        state: State folder of the service, or the address of its Redis.
        out: The Parquet file to write; one that is there is replaced. It says which rows it holds.
        kind: Events, each once; or exposures that wait for no more labels.
        new: Write only those that the bundle's graph lacks.
        now: As of when exposures are read, in microseconds since 1970, for a service on a clock of its own;
            by default now.

    Raises:
        MgoeError: The bundle is of another log, the store cannot be read, or `out` cannot be written.
    """
    opened = Bundle.open(bundle)
    if opened.settings.form != kind:
        wanted, found = kind.removesuffix("s"), opened.settings.form.removesuffix("s")
        raise BundleError(bundle, f"must be of an {wanted} log, found one of an {found} log (data.form)")
    with closing(open_log(state, make=False)) as log:
        return write_rows(opened, log, kind, Path(out), [read_held(opened.path)], new, now)


def write_rows(
    bundle: Bundle,
    log: ServiceLog,
    kind: Form,
    out: Path,
    held: Sequence[Sources],
    new: bool = True,
    now: int | None = None,
) -> int:
    """Write rows of a service as a log, and return their number.

    Args:
        bundle: A bundle of a log of that kind.
        log: The log of the service.
        kind: See `export`.
        out: The Parquet file to write.
        held: What the bundle holds, or what each of several bundles does.
        new: Leave out the rows that one of them holds.
        now: See `export`.

    Raises:
        StoreError: The log is damaged, or does not continue where it is held.
    """
    source = log.source(KINDS[kind])
    for one in held:
        log.check(mark_of(one, source))
    latest = latest_mark(held, source)
    after = latest if new else log.begin(KINDS[kind])
    rows_after = partial(_exposures, now=now) if kind == "exposures" else _events
    reader, end = rows_after(bundle, log, after, latest)
    schema = with_marks(reader.schema, source, after, end)
    with atomic_file(out) as file:
        rows = write_batches(pa.RecordBatchReader.from_batches(schema, reader), file)
    if kind == "exposures":
        logger.info(f"{rows:,} exposures that have waited for their labels")
    return rows


def _events(bundle: Bundle, log: ServiceLog, after: Mark, end: Mark) -> tuple[pa.RecordBatchReader, Mark]:
    """Return the events after a mark, each once, and where the log ends, at `end` if it is empty."""
    data, reader, rows = bundle.settings.data, EventReader.of(bundle), []
    moment = pa.timestamp("us", None if data.timezone == "UTC" else "UTC")
    columns = {data.user: reader.kinds["user"], data.item: reader.kinds["item"], data.time: moment}
    columns |= {data.behavior or "behavior": pa.string(), NUMBER: pa.int64(), DIGEST: pa.binary(16)}
    for end, event, counts in counted(log, reader):
        if event is not None and counts and end.number > after.number:
            taken = end.number, bytes.fromhex(end.digest)
            row = (event.user, event.item, event.time, event.behavior, *taken)
            rows.append(dict(zip(columns, row, strict=True)))
    return pa.Table.from_pylist(rows, pa.schema(columns)).to_reader(), end


def _exposures(
    bundle: Bundle, log: ServiceLog, after: Mark, end: Mark, now: int | None
) -> tuple[pa.RecordBatchReader, Mark]:
    """Return the exposures after a mark that wait for no more labels, and the mark of the last, at least
    `end`."""
    settings, kinds = bundle.settings, EventReader.of(bundle).kinds
    end = max(end, log.mark(log.settled(longest_delay(settings.tasks), now)), key=lambda mark: mark.number)
    now = time.time_ns() // 1000 if now is None else now
    return taken_rows(log, settings, kinds, now, after.number, end.number), end
