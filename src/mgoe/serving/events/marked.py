"""Files of rows that a service has taken: each says which part of which log it holds, so rows count once.

`mgoe log export` writes them. The metadata of such a Parquet file names the log and its marks
before the first row and at the last; two columns hold the number and the digest of each row's record.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mgoe.bundle.held import Mark, Sources, last_of_logs
from mgoe.bundle.manifest import iso_time
from mgoe.data.columns import Expr, Table
from mgoe.data.log_files import LOG, check_complete, files_of, kind_of
from mgoe.errors import DataError
from mgoe.serving.events.chain import check_record

NUMBER, DIGEST = "taken", "digest"
"""Columns with the number of each row's record (`Mark.number`), and with its digest."""
_KEY = b"mgoe.rows"


class MarkedFiles(NamedTuple):
    """Files that hold the rows of a part of a log.

    Attributes:
        after, upto: Marks between which the rows are.
        files: In the order of their rows.
    """

    after: Mark
    upto: Mark
    files: tuple[Path, ...]

    def check(self, mark: Mark, rows: Table) -> None:
        """Check that the rows continue at a mark.

        Args:
            mark: Up to where the log was read.
            rows: The rows of the files.

        Raises:
            DataError: Rows between are missing.
            OtherLogError: The rows are of a copy of the log that has another record there.
        """
        place, number = self.files[0], mark.number
        if number < self.after.number:
            raise DataError(
                place,
                f"must continue after position {mark.position or 0} of the log, up to which the bundle holds "
                f"it, found the rows after {self.after.position}; write the file anew for this bundle",
            )
        if number <= self.upto.number:
            found = [one for one in (self.upto, self.after) if one.number == number]
            if not found:
                record = rows.filter(cast(Expr, rows[NUMBER]) == number)[DIGEST].to_pyarrow().to_pylist()
                found = [Mark(mark.position, digest.hex()) for digest in record]
            check_record(place, mark, found[0] if found else self.upto)

    def times(self, column: str) -> NDArray[np.int64]:
        """Return the time of each row in microseconds since 1970."""
        parts = (pq.read_table(file, columns=[column])[column] for file in self.files)
        return np.concatenate([part.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() for part in parts])


def with_marks(schema: pa.Schema, identity: str, after: Mark, upto: Mark) -> pa.Schema:
    """Return a schema for a file with the rows of a log between two marks."""
    return schema.with_metadata({_KEY: json.dumps([identity, after, upto])})


def read_marks(log: Sequence[str]) -> tuple[dict[str, MarkedFiles], list[str]]:
    """Return which parts of logs of services files hold, by the log's identity, and the files that hold none.

    Args:
        log: Files, folders and globs.

    Raises:
        DataError: Files of one log repeat rows, or rows between them are missing.
    """
    marked, others, found = [], [], dict[str, MarkedFiles]()
    here = [path for path in log if "://" not in path]
    for file in dict.fromkeys(file.resolve() for path in here for file in files_of(path, LOG)):
        check_complete(file, parquet := kind_of(file, LOG) == "parquet")
        metadata = pq.read_schema(file).metadata if parquet else None
        if metadata and _KEY in metadata:
            identity, after, upto = json.loads(metadata[_KEY])
            marked.append((identity, MarkedFiles(Mark(*after), Mark(*upto), (file,))))
        else:
            others.append(str(file))
    for identity, one in sorted(marked, key=lambda pair: pair[1].after.number):
        former = found.setdefault(identity, one)
        if former is not one:
            if former.upto != one.after:
                raise DataError(
                    one.files[0],
                    f"must begin where {former.files[-1]} ends, after position {former.upto.position}, found "
                    f"{one.after.position or 0}: rows would count twice or be missing; write all of the log "
                    "over one file, or each time only what is new (--new)",
                )
            found[identity] = MarkedFiles(former.after, one.upto, former.files + one.files)
    return found, others


def check_apart(times: NDArray[np.int64], until: int, place: object) -> None:
    """Check that rows of a log may count beside unmarked files: late ones may, but not most of them.

    Args:
        times: Times of the rows, in microseconds since 1970.
        until: When the unmarked files end.
        place: The rows, for messages.

    Raises:
        DataError: Most rows are from before the end, so the files probably hold them too.
    """
    if len(times) and np.median(times) <= until:
        raise DataError(
            place,
            f"most rows are from before {iso_time(until)}, the end of files that no service has written and "
            "that may hold the same rows; write the service's rows by `mgoe log export`, and "
            "train in full on these files and on older rows alone",
        )


def check_later(first: int, held: Sources, place: object) -> None:
    """Check that rows of files that no service has written come after those of services.

    Args:
        first: Time of the first row, in microseconds since 1970.
        held: What a bundle holds.
        place: The files, for messages.

    Raises:
        DataError: They do not, so they may be rows that the bundle holds.
    """
    last = last_of_logs(held)
    if last is not None and first <= last:
        raise DataError(
            place,
            f"must come after the rows of a service that the bundle holds, until {iso_time(last)}, found the "
            f"first at {iso_time(first)}; write its rows by `mgoe log export` instead",
        )
