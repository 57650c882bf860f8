"""Turn a data set's published files into a log and configurations that run on it, atomically."""

import json
import logging
import time
from importlib.resources import files
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

from mgoe._util.files import atomic_folder, clear_partial, exclusive, read_json, write_json, write_text
from mgoe._util.tables import open_duckdb
from mgoe.config import Settings
from mgoe.datasets.dataset import DataSet
from mgoe.datasets.reading import Workbench
from mgoe.errors import DataError, OutputError

logger = logging.getLogger(__name__)

SUMMARY = "dataset.json"
MEMORY = 4.0
"""Upper limit of DuckDB's memory in GiB; the rest is spilled to disk."""


class PreparedLog(Settings):
    """Result of `prepare`.

    Example:
        >>> facts = {"name": "movielens-1m", "path": "logs", "rows": {"log": 1_000_209}, "left_out": {}}
        >>> PreparedLog(**facts, configs=["time.yaml"], seconds=3.0).configs
        ['time.yaml']
    """

    name: str
    """Name of the data set."""
    path: str
    """The folder."""
    rows: dict[str, int]
    """Rows of each file by its path below the folder."""
    left_out: dict[str, int]
    """Rows that are in no file, by reason."""
    configs: list[str]
    """Configurations for `mgoe run`."""
    seconds: float
    """Total time."""


def prepare(
    data: DataSet,
    source: Path | str,
    out: Path | str,
    *,
    memory: float = MEMORY,
    overwrite: bool = False,
) -> PreparedLog:
    """Parse a data set's files into `out/log`, with side tables and one configuration per protocol.

    Args:
        data: The data set.
        source: Folder with its files at any depth.
        out: A new folder, or with `overwrite` one that an earlier call wrote.
        memory: Upper limit of DuckDB's memory in GiB.
        overwrite: Replace what an earlier call wrote.

    Raises:
        DataError: A file is missing, or has another layout than the published one.
        OutputError: The folder cannot be written, is not empty, or holds the source.
    """
    source, out = Path(source), Path(out)
    if not source.is_dir():
        raise DataError(source, f"must be the folder that holds the files of {data.name}, found no folder")
    with exclusive(out, f"a log of {data.name}"):
        _check_free(out, source, overwrite)
        clear_partial(out)
        started = time.perf_counter()
        with atomic_folder(out) as folder:
            logger.info(f"reading {', '.join(data.files)}")
            with (
                TemporaryDirectory(dir=folder, prefix="work-") as work,
                open_duckdb(
                    f"{work}/work.duckdb", temp_directory=f"{work}/spill", memory_limit=f"{memory:.2f}GiB"
                ).con as con,
            ):
                bench = Workbench(data.name, source, folder, out, con)
                left_out = data.write(bench)
            for protocol in data.protocols:
                write_text(folder / f"{protocol}.yaml", config(data, protocol, out))
            found = PreparedLog(
                name=data.name,
                path=str(out),
                rows=bench.rows,
                left_out={reason: count for reason, count in left_out.items() if count},
                configs=[str(out / f"{protocol}.yaml") for protocol in data.protocols],
                seconds=time.perf_counter() - started,
            )
            write_json(folder / SUMMARY, vars(found))
    return found


def config(data: DataSet, protocol: str, folder: Path) -> str:
    """Return the text of a data set's configuration.

    Args:
        data: The data set.
        protocol: `time` or `published`.
        folder: Where its log is; the text names its absolute path, so that it runs from anywhere.
    """
    template = files(data.package) / "configs" / f"{data.config}.{protocol}.yaml"
    inside_quotes = json.dumps(str(folder.resolve()), ensure_ascii=False)[1:-1]
    return Template(template.read_text(encoding="utf-8")).substitute(folder=inside_quotes, name=data.name)


def _check_free(out: Path, source: Path, overwrite: bool) -> None:
    """Refuse a folder with foreign files, since it is replaced as a whole."""
    if source.resolve().is_relative_to(out.resolve()):
        raise OutputError(out, f"must not hold the source, found {source} in it; choose a folder elsewhere")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    summary = read_json(out / SUMMARY) if (out / SUMMARY).exists() else {}
    if summary.keys() != PreparedLog.model_fields.keys():
        raise OutputError(out, "holds files that `mgoe data prepare` did not write; choose a new folder")
    if not overwrite:
        raise OutputError(out, "holds a prepared data set already; choose a new folder, or `overwrite` it")
    written = {SUMMARY, "log", *summary["rows"], *(Path(name).name for name in summary["configs"])}
    strange = sorted({path.relative_to(out).as_posix() for path in out.rglob("*")} - written)
    if strange:
        raise OutputError(
            out,
            f"holds a file that `mgoe data prepare` did not write: {strange[0]}; move it away or choose a "
            "new folder",
        )
