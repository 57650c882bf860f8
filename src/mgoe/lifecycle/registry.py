"""A registry: a folder of bundles with aliases, lineage and the history of its changes.

FOLDER/
  current, previous, candidate    links for services and commands, as in `mgoe serve FOLDER/current`
  versions/NAME/                  a bundle under the name that its service answers with, and its release test
  versions/NAME.training/         what the next training continues from, if the bundle came with it
  records/NAME.json               its lineage, which stays when the version is pruned
  .aliases -> .changes/000007     the one link that a change moves
  .changes/000007/                change.json, and one link per alias

A change writes a folder of its own and then moves one link to it. So a reader sees all aliases as before the
change or all as after it, a process that is killed has changed everything or nothing, and the folders of
earlier changes are the history. Order is by number, so a clock that is set back reorders nothing.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from filelock import FileLock, Timeout

from mgoe._util.files import Hold, output_errors, read_json, remove_unless_held, write_json
from mgoe.bundle import Bundle
from mgoe.bundle.manifest import now
from mgoe.bundle.training_state import copy_bundle, state_folder
from mgoe.config import Settings, did_you_mean
from mgoe.errors import BundleError, ConfigError, OutputError
from mgoe.lifecycle.acceptance import Release

CANDIDATE, CURRENT, PREVIOUS = ALIASES = ("candidate", "current", "previous")
WAIT = 60.0
"""Seconds that a change waits for another one; each takes milliseconds."""
_SET_BY = {
    CANDIDATE: "`mgoe registry add`",
    CURRENT: "`mgoe registry promote`",
    PREVIOUS: "the second `mgoe registry promote`",
}
_LINK, _CHANGES, _CHANGE = ".aliases", ".changes", "change.json"


class Change(Settings):
    """One change of the aliases."""

    number: int
    """From 1."""
    time: str
    """When it was made, ISO 8601."""
    action: Literal["add", "promote", "rollback"]
    version: str
    """The version that it was about."""
    aliases: dict[str, str]
    """Version by alias, after the change."""
    reason: str | None = None
    """Why it was promoted in spite of its release test."""


@dataclass(frozen=True)
class Version:
    """A version that a registry holds or held.

    Attributes:
        name: As its service answers with.
        number: Number of the change that added it.
        added: When it was added, ISO 8601.
        model: Name of its model.
        parent: Name of the bundle that it was made from; None after a full training.
        trained: `full`, `retrained` or `refreshed`.
        log: First and last time of the log that it learned from, ISO 8601.
        mgoe: Version of the library that made it.
    """

    name: str
    number: int
    added: str
    model: str
    parent: str | None
    trained: str
    log: list[str]
    mgoe: str

    @classmethod
    def of(cls, bundle: Bundle, number: int) -> Self:
        """Describe a bundle that is added."""
        lineage = bundle.manifest["lineage"]
        return cls(
            name=bundle.name,
            number=number,
            added=now(),
            model=bundle.manifest["model"]["name"],
            parent=lineage["parent"],
            trained=lineage["trained"],
            log=lineage["log"],
            mgoe=bundle.manifest["versions"]["mgoe"],
        )


class Registry:
    """A folder of versions. Any number of processes may read and change it at once.

    Args:
        path: The folder; `add` creates it.

    Example:
        >>> registry = Registry("bundles")
        >>> name = registry.add(folder / "bundle")
        >>> registry.promote(name) == registry.aliases["current"]
        True
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)

    @property
    def latest(self) -> Change:
        """The latest change.

        Raises:
            BundleError: The folder holds no registry.
        """
        self._require()
        return Change(**read_json(self.path / _LINK / _CHANGE))

    @property
    def aliases(self) -> dict[str, str]:
        """Version by alias."""
        return self.latest.aliases

    @property
    def changes(self) -> list[Change]:
        """All changes, oldest first."""
        numbers = range(1, self.latest.number + 1)
        return [Change(**read_json(self._change_folder(number) / _CHANGE)) for number in numbers]

    @property
    def versions(self) -> list[Version]:
        """The versions that are there, oldest first."""
        self._require()
        names = (path.name for path in (self.path / "versions").iterdir())
        found = (self._record(name) for name in names if "." not in name)
        return sorted(found, key=lambda version: version.number)

    def place(self, version: str) -> Path:
        """Return the folder of a version by its name, the beginning of its name, or an alias.

        Raises:
            BundleError: There is none, or several begin so.
        """
        return self.path / "versions" / self.find(version)

    def find(self, version: str) -> str:
        """Return the name of a version by its name, the beginning of its name, or an alias.

        Raises:
            BundleError: There is none, or several begin so.
        """
        aliases = self.aliases
        if version in ALIASES:
            if version not in aliases:
                raise BundleError(self.path, f"has no {version} version; {_SET_BY[version]} sets it")
            return aliases[version]
        names = [one.name for one in self.versions]
        found = [name for name in names if version and name.startswith(version)]
        if len(found) != 1:
            rule = f"{version!r} must name one version, found {len(found)} such"
            raise BundleError(self.path, rule + did_you_mean(version, found or [*names, *aliases]))
        return found[0]

    def lineage(self, version: str) -> list[Version]:
        """Return a version and what it was made from, back to a full training.

        Raises:
            BundleError: There is no such version.
        """
        found = [self._record(self.find(version))]
        while (parent := found[-1].parent) is not None:
            found.append(self._record(parent))
        return found

    def add(self, bundle: Path | str) -> str:
        """Copy a bundle into the registry, check it, and make it the candidate. Adding it again is harmless.

        Returns:
            Its name.

        Raises:
            BundleError: There is no intact bundle, or it was made from one that this registry does not know.
            OutputError: The registry cannot be written.
        """
        with self._copied(Path(bundle)) as copy, self._changing(make=True) as (number, aliases):
            added = Version.of(copy, number)
            if added.parent is not None and not self._record_file(added.parent).exists():
                raise BundleError(
                    bundle,
                    f"was made from {added.parent}, which this registry does not know; add that one first, "
                    "or train in full",
                )
            place = self.path / "versions" / added.name
            if not place.exists():
                write_json(self._record_file(added.name), asdict(added))
                if state_folder(copy.path).exists():
                    shutil.rmtree(state_folder(place), ignore_errors=True)
                    os.replace(state_folder(copy.path), state_folder(place))
                os.replace(copy.path, place)
            if added.name not in (aliases.get(CURRENT), aliases.get(CANDIDATE)):
                moved = aliases | {CANDIDATE: added.name}
                self._change(number, "add", added.name, moved)
        return added.name

    def promote(self, version: str = CANDIDATE, force: str | None = None) -> str:
        """Make a version the current one, if its release test approved it.

        The first version of a registry has nothing to be tested against.

        Args:
            version: Name, beginning of a name, or alias.
            force: Why it is promoted whatever its test says; it is recorded.

        Returns:
            Its name.

        Raises:
            BundleError: There is no such version, or its test does not approve it.
            ConfigError: The reason is empty.
        """
        if force is not None and not force.strip():
            raise ConfigError("force", "must say why, found an empty reason; give one")
        with self._changing() as (number, aliases):
            name, current = self.find(version), aliases.get(CURRENT)
            if name == current:
                return name
            if force is None and (objection := self._objection(name, current)):
                raise BundleError(
                    self.path / "versions" / name, f"{objection}, or promote it by force, with the reason"
                )
            self._change(number, "promote", name, _with_current(aliases, name), force)
        return name

    def _objection(self, name: str, current: str | None) -> str | None:
        """Return why a version may not become current in place of another; None if it may."""
        if (tested := Release.of(self.path / "versions" / name)) is None:
            return None if current is None else "was not tested; run `mgoe registry test`"
        if (tested.candidate, tested.baseline) != (name, current):
            return f"was tested against {tested.baseline}, and {current} is current; test it again"
        if not tested.approved:
            return f"was refused by the release test ({'; '.join(tested.reasons)}); add a better one"
        return None

    def rollback(self) -> str:
        """Make the previous version the current one, and the current one the previous. No test is asked.

        Returns:
            The name of the version that is current now.

        Raises:
            BundleError: There is no previous version.
        """
        with self._changing() as (number, aliases):
            name = self.find(PREVIOUS)
            self._change(number, "rollback", name, _with_current(aliases, name))
        return name

    def prune(self, keep: int = 5) -> tuple[list[str], list[str]]:
        """Remove old versions. Those that an alias names stay, and so do those that a service has open.

        Args:
            keep: How many of the newest other versions stay.

        Returns:
            The names of the versions that were removed, and of those that stay because they are served.
        """
        if keep < 0:
            raise ConfigError("keep", f"must be at least 0, found {keep}; give a number of versions")
        with self._changing() as (_, aliases):
            others = [one.name for one in self.versions if one.name not in aliases.values()]
            old = others[: max(0, len(others) - keep)]
            gone = [name for name in old if remove_unless_held(self.path / "versions" / name)]
            for name in gone:
                shutil.rmtree(state_folder(self.path / "versions" / name), ignore_errors=True)
            for left in (self.path / "versions").glob(".*.partial"):
                remove_unless_held(left)
        return gone, [name for name in old if name not in gone]

    @contextmanager
    def _copied(self, bundle: Path) -> Iterator[Bundle]:
        """Yield an intact copy of a bundle, which is removed unless it was moved."""
        original = Bundle.open(bundle, verify=False)
        work = self.path / "versions" / f".{original.name}.{os.getpid()}.partial"
        with self._changing(make=True):  # `prune` removes a copy that nobody holds
            work.mkdir(parents=True, exist_ok=True)
            held = Hold(work)
        with closing(held):
            try:
                place = work / "bundle"
                copy_bundle(original.path, place)
                copy = Bundle.open(place)
                if copy.name != original.name:
                    raise BundleError(bundle, "was replaced while it was copied; add it again")
                yield copy
            finally:
                shutil.rmtree(work, ignore_errors=True)

    @contextmanager
    def _changing(self, make: bool = False) -> Iterator[tuple[int, dict[str, str]]]:
        """Hold the registry, and yield the number of the next change and the aliases as they are.

        Args:
            make: Make the registry if it is not there.
        """
        if not make:
            self._require()
        with output_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock = FileLock(self.path / ".lock").acquire(timeout=WAIT)
            except Timeout:
                raise OutputError(
                    self.path, f"another process has changed it for {WAIT:g} s; try again"
                ) from None
            with lock:
                former = self.latest if (self.path / _LINK).exists() else None
                yield (1, {}) if former is None else (former.number + 1, former.aliases)

    def _change(
        self,
        number: int,
        action: Literal["add", "promote", "rollback"],
        version: str,
        aliases: dict[str, str],
        reason: str | None = None,
    ) -> None:
        folder = self._change_folder(number)
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed before it moved the link
        folder.mkdir(parents=True)
        change = Change(
            number=number, time=now(), action=action, version=version, aliases=aliases, reason=reason
        )
        write_json(folder / _CHANGE, change.model_dump())
        for alias, name in aliases.items():
            (folder / alias).symlink_to(f"../../versions/{name}")
        for alias in ALIASES:
            link = self.path / alias
            if not link.is_symlink():
                if link.exists():
                    raise OutputError(link, "is in the place of an alias of the registry; move it away")
                link.symlink_to(f"{_LINK}/{alias}")
        moved = self.path / f"{_LINK}.next"
        moved.unlink(missing_ok=True)
        moved.symlink_to(f"{_CHANGES}/{folder.name}")
        os.replace(moved, self.path / _LINK)

    def _require(self) -> None:
        """Refuse a folder that holds no registry."""
        if not (self.path / _LINK).exists():
            raise BundleError(
                self.path, "holds no registry; `mgoe registry add` makes one with its first bundle"
            )

    def _change_folder(self, number: int) -> Path:
        return self.path / _CHANGES / f"{number:06d}"

    def _record_file(self, name: str) -> Path:
        return self.path / "records" / f"{name}.json"

    def _record(self, name: str) -> Version:
        return Version(**read_json(self._record_file(name)))


def served_path(bundle: Path, waits: bool = False) -> Path:
    """Return the link that a service follows, of `registry:FOLDER@ALIAS`; any other path as it is.

    Args:
        bundle: The path.
        waits: Whether the alias may name no version yet.

    Raises:
        BundleError: The folder holds no registry, or the registry has no such version.
        ConfigError: No alias is named.

    Example:
        >>> served_path(Path("bundles/today"))
        PosixPath('bundles/today')
    """
    kind, colon, rest = str(bundle).partition(":")
    if kind != "registry" or not colon:
        return bundle
    folder, _, alias = rest.rpartition("@")
    if not folder or alias not in ALIASES:
        raise ConfigError(
            "bundle",
            f"must be registry:FOLDER@ALIAS with an alias of {', '.join(ALIASES)}, found {str(bundle)!r}; "
            "write it as in registry:bundles@current",
        )
    registry = Registry(folder)
    if alias not in registry.aliases and not waits:
        registry.find(alias)
    return Path(folder, alias)


def _with_current(aliases: Mapping[str, str], name: str) -> dict[str, str]:
    """Return aliases after a version has become current: no other alias names it, and the one before is
    previous."""
    others = {alias: held for alias, held in aliases.items() if held != name}
    before = {PREVIOUS: aliases[CURRENT]} if CURRENT in aliases else {}
    return others | before | {CURRENT: name}
