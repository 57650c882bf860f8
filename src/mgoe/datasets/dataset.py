"""The description of a public data set."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict

from mgoe.datasets.reading import Workbench

Write = Callable[[Workbench], dict[str, int]]
"""Write the log and return the number of rows left out, by reason."""


@dataclass(frozen=True)
class Download:
    """A file at a public address.

    Example:
        >>> Download("https://example.org/log.zip").name
        'log.zip'
    """

    address: str
    bytes: int | None = None
    """Size, if published."""
    md5: str | None = None
    """Checksum, if published."""

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.address.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class DataSetFacts:
    """What there is to know about a public data set."""

    __pydantic_config__ = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, json_schema_serialization_defaults_required=True
    )

    title: str
    name: str
    form: Literal["events", "exposures"]
    tasks: tuple[str, ...]
    """Weakest to strongest, as in its configurations."""
    size: str
    """Size of the download, for people."""
    license: str
    home: str
    access: str = "no account needed"
    """How to get the files."""
    downloads: tuple[Download, ...] = ()
    files: tuple[str, ...]
    """Files that `prepare` reads, at any depth below the folder."""
    instead: tuple[str, ...] | None = None
    """Other files that can be used instead."""
    time: str | None = None
    """The leak-free protocol in `time.yaml`; none if the files hold neither times nor an order."""
    published: str
    """The protocol of its papers in `published.yaml`, and what it loses."""
    layout: str
    """Where the layout of the files is documented."""
    notes: str | None = None
    """Further remarks."""


@dataclass(frozen=True, kw_only=True)
class DataSet(DataSetFacts):
    """A public data set and how its files become a log.

    Example:
        >>> from mgoe.datasets import find
        >>> find("movielens-1m").protocols
        ('time', 'published')
    """

    write: Write
    """Writes the log."""
    config: str
    """Its templates are `configs/CONFIG.PROTOCOL.yaml` of `package`."""
    package: str = "mgoe.datasets"
    """The Python package that holds its templates."""

    @property
    def protocols(self) -> tuple[str, ...]:
        """Protocols whose configurations `prepare` writes."""
        return ("published",) if self.time is None else ("time", "published")

    def is_complete(self, names: set[str]) -> bool:
        """Return whether files of these names are sufficient."""
        return names.issuperset(self.files) or bool(self.instead and names.issuperset(self.instead))

    @property
    def wanted(self) -> set[str]:
        """Names of the files to unpack from archives."""
        return {*self.files, *(self.instead or ())}
