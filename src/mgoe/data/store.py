"""Where Parquet files are: on a disk, or in an object store that a URL names."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from mgoe.errors import DataError


class Store:
    """A Parquet file, or a folder of them.

    Args:
        place: A path, or a URL: `s3://`, `gs://` and others that PyArrow reads, or `fsspec+PROTOCOL://` for
            protocols of fsspec.

    Example:
        >>> Store(prepared.path / "users.parquet").sizes() == {
        ...     str(prepared.path / "users.parquet"): (prepared.path / "users.parquet").stat().st_size
        ... }
        True
    """

    def __init__(self, place: Path | str):
        self.place = place

    @classmethod
    def of(cls, path: Path) -> "Store":
        """Return the file or folder at a path, or what a file beside it, `NAME.url`, names in its place."""
        pointer = path.with_name(f"{path.name}.url")
        moved = not path.exists() and pointer.exists()
        return cls(pointer.read_text(encoding="utf-8").strip().rstrip("/") if moved else path)

    @cached_property
    def _system(self) -> tuple[FileSystem, str]:
        """File system, and the place in it."""
        local = isinstance(self.place, Path)
        return (LocalFileSystem(), str(self.place)) if local else FileSystem.from_uri(self.place)

    def sizes(self) -> dict[str, int | None]:
        """Return the bytes of the file, or of each file of the folder, in the order of names; None if there
        is no file.

        Raises:
            DataError: The place cannot be read.
        """
        with readable(self.place):
            system, path = self._system
            whole = system.get_file_info(path)
            if whole.type != FileType.Directory:
                return {str(self.place): whole.size}
            found = system.get_file_info(FileSelector(path))
        names = {file.base_name: file.size for file in found if file.extension == "parquet"}
        return {f"{self.place}/{name}": names[name] for name in sorted(names)}

    def open(self, file: str) -> pq.ParquetFile:
        """Open a file that `sizes` names.

        Raises:
            DataError: It cannot be read.
        """
        with readable(file):
            system, path = self._system
            inside = path + file.removeprefix(str(self.place))
            # from a store, the columns of a row group come in few requests
            return pq.ParquetFile(system.open_input_file(inside), pre_buffer=not isinstance(self.place, Path))


@contextmanager
def readable(place: Path | str) -> Iterator[None]:
    """Turn the errors of reading a file of prepared data into a `DataError`."""
    try:
        yield
    except (OSError, ImportError, ValueError) as error:
        raise DataError(
            place,
            f"cannot be read ({' '.join(str(error).split())[:200]}); put the file back, or make the run's "
            "data again",
        ) from None
