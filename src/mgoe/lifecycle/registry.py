"""A registry: a folder of bundles with aliases, lineage and the history of its changes.

FOLDER/
  current, previous, candidate    links for services and commands, as in `mgoe serve FOLDER/current`
  versions/NAME/                  a bundle under the name that its service answers with, and its release test
  versions/NAME.training/         what the next training continues from, if the bundle came with it
  versions/NAME.prepared/         what services take of a version that was tested: graphs and an index
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
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from mgoe._util.files import Hold, output_errors, read_json, remove_unless_held, write_json
from mgoe.bundle import Bundle, membership
from mgoe.bundle.manifest import now
from mgoe.bundle.training_state import copy_bundle, state_folder
from mgoe.config import did_you_mean
from mgoe.data.erasures import Erasures
from mgoe.errors import BundleError, ConfigError, OutputError
from mgoe.lifecycle.acceptance import objection
from mgoe.lifecycle.erased_bundle import check_erased, held_by
from mgoe.lifecycle.versions import (
    ALIASES,
    CANDIDATE,
    CURRENT,
    NOTHING,
    PREVIOUS,
    SET_BY,
    Action,
    Change,
    Version,
    check_reason,
    with_current,
)
from mgoe.serving.online.base_values import prepared_folder

WAIT = 60.0
"""Seconds that a change waits for another one; each takes milliseconds, or as long as it takes to read a
version that becomes current."""
_CHANGES = ".changes"


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
        return Change(**read_json(self.path / membership.LINK / membership.CHANGE))

    @property
    def aliases(self) -> dict[str, str]:
        """Version by alias."""
        return self.latest.aliases

    @property
    def changes(self) -> list[Change]:
        """All changes, oldest first."""
        numbers = range(1, self.latest.number + 1)
        return [Change(**read_json(self._change_folder(number) / membership.CHANGE)) for number in numbers]

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
                raise BundleError(self.path, f"has no {version} version; {SET_BY[version]} sets it")
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
        return self._line(self._record(self.find(version)))

    def rejection(self, version: str) -> str | None:
        """Return why a version is rejected: someone did, a rollback did, or it was made from such a version;
        None if it is not.

        Raises:
            BundleError: There is no such version.
        """
        return self._rejection(self.latest.verdicts, self._record(self.find(version)))

    def add(self, bundle: Path | str, adopt: bool = False) -> str:
        """Copy a bundle into the registry, check it, and make it the candidate. Adding it again is harmless.

        Args:
            bundle: Its folder.
            adopt: Take one of another deployment.

        Returns:
            Its name.

        Raises:
            BundleError: There is no intact bundle, it was made from one that this registry does not know, or
                it is rejected.
            OtherDeploymentError: It is of another deployment.
            OutputError: The registry cannot be written.
        """
        theirs = None if adopt else membership.deployment_of(Bundle.open(bundle, verify=False))
        with self._copied(Path(bundle)) as copy, self._changing(make=True) as former:
            added = Version.of(copy, former.number + 1)
            of = membership.check_deployment(self.path, former.deployment, theirs)
            if of is None and not former.number:  # an older registry waits for that of its store
                of = membership.new_deployment()
            if added.parent is not None and not self._record_file(added.parent).exists():
                raise BundleError(
                    bundle,
                    f"was made from {added.parent}, which this registry does not know; add that one first, "
                    "or train in full",
                )
            if reason := self._rejection(former.verdicts, added):
                raise BundleError(bundle, f"is rejected: {reason}; allow it first (mgoe registry allow)")
            place = self.path / "versions" / added.name
            if not place.exists():
                write_json(self._record_file(added.name), asdict(added))
                if state_folder(copy.path).exists():
                    shutil.rmtree(state_folder(place), ignore_errors=True)
                    os.replace(state_folder(copy.path), state_folder(place))
                os.replace(copy.path, place)
            if added.name not in (former.aliases.get(CURRENT), former.aliases.get(CANDIDATE)):
                self._change(former, "add", added.name, former.aliases | {CANDIDATE: added.name}, of=of)
        return added.name

    def promote(self, version: str = CANDIDATE, force: str | None = None) -> str:
        """Make a version the current one, if it is intact and its release test approved it.

        The first version of a registry has nothing to be tested against.

        Args:
            version: Name, beginning of a name, or alias.
            force: Why it is promoted whatever its test says; it is recorded. A rejected version is then
                allowed again.

        Returns:
            Its name.

        Raises:
            BundleError: There is no such version, it is damaged or rejected, or its test does not approve it.
            ConfigError: The reason is empty.
        """
        if force is not None:
            check_reason("force", force)
        with self._changing() as former:
            name, current = self.find(version), former.aliases.get(CURRENT)
            if name == current:
                return name
            rejection = self._rejection(former.verdicts, self._record(name))
            tested = objection(place := self.path / "versions" / name, current)
            barred = f"is rejected: {rejection}; allow it" if rejection else tested
            if force is None and barred:
                raise BundleError(place, f"{barred}, or promote it by force, with the reason")
            self._check_intact(name)
            verdicts = former.verdicts | ({name: None} if rejection else {})
            self._change(former, "promote", name, with_current(former.aliases, name), verdicts, force)
        return name

    def rollback(self, version: str = PREVIOUS, reason: str = "it was rolled back") -> str:
        """Make an earlier version the current one, and reject the one that was current. No test is asked.

        Args:
            version: Name, beginning of a name, or alias.
            reason: Why the version that was current is rejected, with all that was made from it.

        Returns:
            The name of the version that is current now.

        Raises:
            BundleError: There is no such version, it is damaged, it never was current or is so now, or it is
                rejected, then, too.
            ConfigError: The reason is empty.
        """
        check_reason("reason", reason)
        with self._changing() as former:
            name = self.find(version)
            if not any(change.aliases.get(CURRENT) == name for change in self.changes):
                raise BundleError(self.path / "versions" / name, "never was current; promote it instead")
            self._check_intact(name)
            verdicts = former.verdicts | {former.aliases[CURRENT]: reason}
            self._change(former, "rollback", name, with_current(former.aliases, name), verdicts, reason)
        return name

    def reject(self, version: str, reason: str) -> str:
        """Bar a version, and what was made from it, from being candidate or current until it is allowed.

        Args:
            version: Name, beginning of a name, or alias.
            reason: Why; it is recorded.

        Returns:
            Its name.

        Raises:
            BundleError: There is no such version, or the current one is it or was made from it.
            ConfigError: The reason is empty.
        """
        check_reason("reason", reason)
        with self._changing() as former:
            name = self.find(version)
            self._change(former, "reject", name, former.aliases, former.verdicts | {name: reason}, reason)
        return name

    def allow(self, version: str) -> str:
        """Undo the rejection of a version, and of what was made from it.

        Returns:
            Its name.

        Raises:
            BundleError: There is no such version, or it is not rejected.
        """
        with self._changing() as former:
            name = self.find(version)
            if self._rejection(former.verdicts, self._record(name)) is None:
                raise BundleError(self.path / "versions" / name, "is not rejected; nothing is to be allowed")
            self._change(former, "allow", name, former.aliases, former.verdicts | {name: None})
        return name

    def prune(self, keep: int = 5) -> tuple[list[str], list[str]]:
        """Remove old versions. Those that an alias names stay, and so do those that a service has open.

        Args:
            keep: How many of the newest other versions stay, unless they hold users who were erased.

        Returns:
            The names of the versions that were removed, and of those that stay because they are served.
        """
        if keep < 0:
            raise ConfigError("keep", f"must be at least 0, found {keep}; give a number of versions")
        with self._changing() as former:
            others = [one.name for one in self.versions if one.name not in former.aliases.values()]
            newest, erasures = others[max(0, len(others) - keep) :], Erasures.of(self.path)
            if erasures.entries:
                newest = [name for name in newest if not held_by(erasures, self._opened(name))]
            old = [name for name in others if name not in newest]
            gone = [name for name in old if self._remove(name)]
            for left in (self.path / "versions").glob(".*.partial"):
                remove_unless_held(left)
        return gone, [name for name in old if name not in gone]

    def take_erased(self, bundle: Path) -> str:
        """Add a bundle from which users were erased, and make it the current version.

        An alias of a version that still holds erased users goes.

        Returns:
            Its name.
        """
        name, erasures = self.add(bundle), Erasures.of(self.path)
        with self._changing() as former:
            left = {alias: one for alias, one in former.aliases.items() if one != name}
            kept = {alias: one for alias, one in left.items() if not held_by(erasures, self._opened(one))}
            self._change(former, "erase", name, kept | {CURRENT: name})
        return name

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
                check_erased(Erasures.of(self.path), copy)
                yield copy
            finally:
                shutil.rmtree(work, ignore_errors=True)

    @contextmanager
    def _changing(self, make: bool = False) -> Iterator[Change]:
        """Hold the registry, and yield its latest change.

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
                yield self.latest if (self.path / membership.LINK).exists() else NOTHING

    def _change(
        self,
        former: Change,
        action: Action,
        version: str,
        aliases: dict[str, str],
        verdicts: dict[str, str | None] | None = None,
        reason: str | None = None,
        of: str | None = None,
    ) -> None:
        """Write the change that follows a former one. Rejected versions lose their aliases.

        Raises:
            BundleError: The current version would be rejected.
        """
        verdicts, kept = former.verdicts if verdicts is None else verdicts, dict[str, str]()
        for alias, name in aliases.items():
            if (rejection := self._rejection(verdicts, self._record(name))) is None:
                kept[alias] = name
            elif alias == CURRENT:
                rule = f"would be current and rejected ({rejection}); roll back to another first, or allow it"
                raise BundleError(self.path / "versions" / name, rule)
        facts = {"verdicts": verdicts, "reason": reason, membership.DEPLOYMENT: of or former.deployment}
        change = Change(
            number=former.number + 1, time=now(), action=action, version=version, aliases=kept, **facts
        )
        folder = self._change_folder(change.number)
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed before it moved the link
        folder.mkdir(parents=True)
        write_json(folder / membership.CHANGE, change.model_dump())
        for alias, name in kept.items():
            (folder / alias).symlink_to(f"../../versions/{name}")
        for alias in ALIASES:
            link = self.path / alias
            if not link.is_symlink():
                if link.exists():
                    raise OutputError(link, "is in the place of an alias of the registry; move it away")
                link.symlink_to(f"{membership.LINK}/{alias}")
        moved = self.path / f"{membership.LINK}.next"
        moved.unlink(missing_ok=True)
        moved.symlink_to(f"{_CHANGES}/{folder.name}")
        os.replace(moved, self.path / membership.LINK)

    def _line(self, version: Version) -> list[Version]:
        """Return a version and what it was made from."""
        found = [version]
        while (parent := found[-1].parent) is not None:
            found.append(self._record(parent))
        return found

    def _rejection(self, verdicts: Mapping[str, str | None], version: Version) -> str | None:
        """Return why a version is rejected, by the nearest version of its lineage that has a verdict."""
        found = next((one.name for one in self._line(version) if one.name in verdicts), version.name)
        reason = verdicts.get(found)
        return f"made from {found}, {reason}" if reason and found != version.name else reason

    def _check_intact(self, name: str) -> None:
        """Check every file of a version.

        Raises:
            BundleError: One is missing or was changed, the version is gone, or it holds erased users.
        """
        place = self.path / "versions" / name
        if (found := Bundle.open(place)).name != name:
            raise BundleError(place, "holds another bundle than its name says; add that version again")
        check_erased(Erasures.of(self.path), found)

    def _opened(self, name: str) -> Bundle:
        return Bundle.open(self.path / "versions" / name, verify=False)

    def _remove(self, name: str) -> bool:
        """Remove a version, unless a service of this machine has it open; return whether it is gone."""
        if gone := remove_unless_held(self.path / "versions" / name):
            for folder in (state_folder, prepared_folder):
                shutil.rmtree(folder(self.path / "versions" / name), ignore_errors=True)
        return gone

    def _require(self) -> None:
        """Refuse a folder that holds no registry."""
        if not (self.path / membership.LINK).exists():
            raise BundleError(
                self.path, "holds no registry; `mgoe registry add` makes one with its first bundle"
            )

    def _change_folder(self, number: int) -> Path:
        return self.path / _CHANGES / f"{number:06d}"

    def _record_file(self, name: str) -> Path:
        return self.path / "records" / f"{name}.json"

    def _record(self, name: str) -> Version:
        return Version(**read_json(self._record_file(name)))
