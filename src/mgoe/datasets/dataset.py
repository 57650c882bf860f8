"""What a public data set is, to people and to the commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mgoe.datasets.reading import Workbench

Write = Callable[["Workbench"], dict[str, int]]
"""Writes the log; returns how many rows were left out, by reason."""


@dataclass(frozen=True)
class Download:
    """A file at a public address."""

    address: str
    size: int | None = None
    """Bytes, where they are published."""
    md5: str | None = None
    """Where it is published."""

    @property
    def name(self) -> str:
        """Of the file."""
        return self.address.rpartition("/")[2]


@dataclass(frozen=True)
class DataSet:
    """A public data set and how its files become a log."""

    name: str
    title: str
    form: Literal["events", "exposures"]
    tasks: tuple[str, ...]
    """Weakest to strongest, as in its configurations."""
    home: str
    licence: str
    size: str
    """Of what is fetched, for people."""
    files: tuple[str, ...]
    """Those that `prepare` reads, wherever below the folder they lie."""
    write: Write
    """Writes the log."""
    config: str
    """Its templates are `configs/CONFIG.PROTOCOL.yaml`."""
    published: str
    """The protocol of its papers, as `published.yaml` has it, and what that loses."""
    layout: str
    """Where the layout of the files was read."""
    time: str | None = None
    """The leak-free protocol of `time.yaml`; None where the files hold no times and no order."""
    downloads: tuple[Download, ...] = ()
    instead: tuple[str, ...] = ()
    """Other files that do as well."""
    access: str = "no account needed"
    """How to come by the files."""
    notes: str = ""
    """What else to know."""
    real: bool = False
    """Whether `prepare` was run on the real files."""

    @property
    def protocols(self) -> tuple[str, ...]:
        """The configurations that `prepare` writes."""
        return ("published",) if self.time is None else ("time", "published")

    @property
    def choices(self) -> list[tuple[str, ...]]:
        """Files that are enough."""
        return [self.files, self.instead] if self.instead else [self.files]

    @property
    def wanted(self) -> set[str]:
        """Names of files to take out of archives."""
        return {*self.files, *self.instead}

    def row(self) -> dict[str, Any]:
        """One row of the list of data sets."""
        return {
            "name": self.name,
            "form": self.form,
            "tasks": list(self.tasks),
            "size": self.size,
            "licence": self.licence,
            "run on real files": self.real,
        }

    def describe(self) -> dict[str, Any]:
        """Everything that is known of it."""
        return {
            "title": self.title,
            **self.row(),
            "home": self.home,
            "access": self.access,
            "downloads": [{"address": d.address, "bytes": d.size, "md5": d.md5} for d in self.downloads],
            "files": list(self.files),
            "or instead": list(self.instead) or None,
            "time.yaml": self.time,
            "published.yaml": self.published,
            "layout read in": self.layout,
            "notes": self.notes or None,
        }
