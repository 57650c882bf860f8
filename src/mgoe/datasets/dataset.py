"""The description of a public data set."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mgoe.datasets.reading import Workbench

Write = Callable[["Workbench"], dict[str, int]]
"""Write the log and return the number of rows left out, by reason."""


@dataclass(frozen=True)
class Download:
    """One file at a public address.

    Example:
        >>> Download("https://example.org/log.zip").name
        'log.zip'
    """

    address: str
    size: int | None = None
    """Bytes, if published."""
    md5: str | None = None
    """Checksum, if published."""

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.address.rpartition("/")[2]


@dataclass(frozen=True)
class DataSet:
    """A public data set and how its files become a log.

    Example:
        >>> from mgoe.datasets import find
        >>> find("movielens-1m").protocols
        ('time', 'published')
    """

    name: str
    title: str
    form: Literal["events", "exposures"]
    tasks: tuple[str, ...]
    """Weakest to strongest, as in its configurations."""
    home: str
    license: str
    size: str
    """Size of the download, for people."""
    files: tuple[str, ...]
    """Files that `prepare` reads, at any depth below the folder."""
    write: Write
    """Writes the log."""
    config: str
    """Its templates are `configs/CONFIG.PROTOCOL.yaml`."""
    published: str
    """The protocol of its papers in `published.yaml`, and what it loses."""
    layout: str
    """Where the layout of the files is documented."""
    time: str | None = None
    """The leak-free protocol in `time.yaml`; None if the files hold neither times nor an order."""
    downloads: tuple[Download, ...] = ()
    instead: tuple[str, ...] = ()
    """Other files that can be used instead."""
    access: str = "no account needed"
    """How to get the files."""
    notes: str = ""
    """Further remarks."""
    real: bool = False
    """Whether `prepare` was run on the real files."""

    @property
    def protocols(self) -> tuple[str, ...]:
        """Protocols whose configurations `prepare` writes."""
        return ("published",) if self.time is None else ("time", "published")

    def is_complete(self, names: set[str]) -> bool:
        """Return whether files of these names are sufficient."""
        return names.issuperset(self.files) or (bool(self.instead) and names.issuperset(self.instead))

    @property
    def wanted(self) -> set[str]:
        """Names of the files to unpack from archives."""
        return {*self.files, *self.instead}

    def row(self) -> dict[str, Any]:
        """Return one row of the list of data sets."""
        return {
            "name": self.name,
            "form": self.form,
            "tasks": list(self.tasks),
            "size": self.size,
            "license": self.license,
            "real": self.real,
        }

    def describe(self) -> dict[str, Any]:
        """Return all facts about the data set."""
        return {
            "title": self.title,
            **self.row(),
            "home": self.home,
            "access": self.access,
            "downloads": [{"address": d.address, "bytes": d.size, "md5": d.md5} for d in self.downloads],
            "files": list(self.files),
            "instead": list(self.instead) or None,
            "time": self.time,
            "published": self.published,
            "layout": self.layout,
            "notes": self.notes or None,
        }
