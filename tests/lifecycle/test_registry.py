"""A registry is never half changed: by several processes at once, and by one that is killed at any moment."""

import json
import os
import random
import resource
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from mgoe._util.files import Hold, sha256
from mgoe.bundle import MANIFEST, Bundle
from mgoe.errors import BundleError, ConfigError, MgoeError, OutputError
from mgoe.lifecycle import Registry
from tests.effort import SOAK, up_to
from tests.lifecycle.fakes import note_release, write

WHY = "a test"


@contextmanager
def made(names: int = 3) -> Iterator[tuple[Registry, list[Path]]]:
    """A registry to fill, and bundles, each made from the one before."""
    with tempfile.TemporaryDirectory() as temporary:
        folders, parent = [Path(temporary) / str(n) for n in range(names)], None
        for folder in folders:
            parent = write(folder, folder.name, parent, "full" if parent is None else "retrained")
        yield Registry(Path(temporary) / "registry"), folders


def is_whole(registry: Registry) -> bool:
    """Whether links, aliases and history agree, every alias leads to an intact version, and every lineage to
    a full training. What does not is shown by the assertion that fails."""
    latest, names = registry.latest, {version.name for version in registry.versions}
    assert registry.changes[-1] == latest
    assert list(latest.aliases.values()).count(latest.aliases.get("current", "")) <= 1
    for alias in ("candidate", "current", "previous"):
        link = registry.path / alias
        assert link.exists() == (alias in latest.aliases)
        if link.exists():
            assert link.resolve().name == latest.aliases[alias]
            assert latest.aliases[alias] in names
            assert registry.rejection(latest.aliases[alias]) is None
    for name in names:
        assert registry.lineage(name)[-1].trained == "full"
    return True


def test_a_version_passes_from_candidate_to_current_to_previous():
    with made() as (registry, folders):
        first, second, third = (registry.add(folder) for folder in folders)
        assert registry.aliases == {"candidate": third}
        registry.promote(first)
        with pytest.raises(BundleError, match="was not tested; run `mgoe registry test`"):
            registry.promote(second)
        note_release(registry.place(second), second, first)
        registry.promote(second[:6])
        assert registry.aliases == {"candidate": third, "current": second, "previous": first}
        assert registry.promote(second) == second
        assert registry.rollback() == first
        assert registry.aliases == {"current": first}
        assert [change.action for change in registry.changes] == [*["add"] * 3, *["promote"] * 2, "rollback"]
        assert [one.name for one in registry.lineage(third)] == [third, second, first]
        assert is_whole(registry)


def test_what_the_release_test_says_is_obeyed_unless_a_reason_is_recorded():
    with made() as (registry, folders):
        first, second, third = (registry.add(folder) for folder in folders)
        registry.promote(first)
        note_release(registry.place(second), second, first, approved=False)
        with pytest.raises(BundleError, match="refused by the release test \\(auc of click\\)"):
            registry.promote(second)
        note_release(registry.place(third), third, second)
        with pytest.raises(
            BundleError, match=f"tested against {second}, and {first} is current; test it again"
        ):
            registry.promote(third)
        with pytest.raises(ConfigError, match="must say why"):
            registry.promote(third, force=" ")
        assert registry.aliases["current"] == first
        registry.promote(third, force=WHY)
        assert registry.latest.reason == WHY
        assert is_whole(registry)


def test_a_rollback_rejects_what_was_current_and_all_that_was_made_from_it():
    with made(4) as (registry, folders):
        first, second, third = (registry.add(folder) for folder in folders[:3])
        registry.promote(first)
        registry.promote(second, WHY)
        note_release(registry.place(third), third, first)
        registry.rollback(reason="clicks fell")
        assert registry.aliases == {"current": first}
        assert registry.rejection(second) == "clicks fell"
        assert registry.rejection(third) == f"made from {second}, clicks fell"
        with pytest.raises(BundleError, match=f"is rejected: made from {second}, clicks fell; allow it"):
            registry.promote(third)
        for folder in folders[1:]:
            with pytest.raises(BundleError, match=r"is rejected: .*clicks fell; allow it first"):
                registry.add(folder)
        assert is_whole(registry)
        registry.allow(second)
        with pytest.raises(BundleError, match="is not rejected; nothing is to be allowed"):
            registry.allow(third)
        registry.promote(third)
        registry.add(folders[3])
        assert set(registry.aliases) == {"current", "previous", "candidate"}
        assert [one.reason for one in registry.changes if one.action == "rollback"] == ["clicks fell"]
        assert is_whole(registry)


def test_a_rejected_candidate_waits_no_longer_until_someone_allows_or_forces_it():
    with made(4) as (registry, folders):
        first, second, third = (registry.add(folder) for folder in folders[:3])
        registry.promote(first)
        with pytest.raises(ConfigError, match="must say why"):
            registry.reject("candidate", " ")
        registry.reject(second, "learned a broken day")
        assert registry.aliases == {"current": first}
        with pytest.raises(
            BundleError, match=f"is rejected: made from {second}, learned a broken day; allow"
        ):
            registry.promote(third)
        registry.promote(third, force="the day is fixed in it")
        assert registry.aliases == {"current": third, "previous": first}
        assert (registry.rejection(third), registry.rejection(second)) == (None, "learned a broken day")
        registry.add(folders[3])
        with pytest.raises(BundleError, match=r"would be current and rejected .*; roll back to another"):
            registry.reject("current", WHY)
        assert is_whole(registry)


def test_a_rollback_leads_to_a_version_that_was_current_and_is_still_allowed():
    with made(4) as (registry, folders):
        first, second, third, _ = (registry.add(folder) for folder in folders)
        for name in (first, second, third):
            registry.promote(name, WHY)
        assert registry.rollback(first) == first
        assert registry.aliases == {"current": first}
        for name in (first, second):
            with pytest.raises(BundleError, match=r"would be current and rejected .*; roll back to another"):
                registry.rollback(name)
        with pytest.raises(BundleError, match="never was current; promote it instead"):
            registry.rollback(name_of(folders[3]))
        assert is_whole(registry)


@pytest.mark.parametrize("damage", ["changed", "removed", "exchanged"])
def test_a_version_that_is_damaged_or_gone_never_becomes_current(damage: str):
    with made() as (registry, folders):
        first, second, _ = (registry.add(folder) for folder in folders)
        registry.promote(second)
        registry.promote(first, WHY)
        before, place = registry.changes, registry.place(second)
        if damage == "changed":
            (place / "weights").write_text("x")
        else:
            shutil.rmtree(place)
        if damage == "exchanged":
            shutil.copytree(registry.place(first), place)
        messages = {"changed": "checksum", "removed": "holds no bundle", "exchanged": "another bundle than"}
        for act in (lambda: registry.promote("previous", force=WHY), registry.rollback):
            with pytest.raises(BundleError, match=messages[damage]):
                act()
        assert registry.changes == before


@given(st.text(max_size=3), st.text(max_size=3))
def test_a_version_is_named_by_its_content(one: str, other: str):
    """The name is a digest of the manifest, which holds the checksum of every file."""
    with tempfile.TemporaryDirectory() as folder:
        names = [write(Path(folder, number), text) for number, text in (("0", one), ("1", other))]
        assert (names[0] == names[1]) == (one == other)
        assert names[0] == sha256(Path(folder, "0", MANIFEST))[:12]


ACTIONS = ["add", "promote", "rollback", "reject", "allow", "prune"]


@up_to(12)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 4))))
def test_any_changes_leave_a_registry_whole(changes: list[tuple[str, int]]):
    with made(5) as (registry, folders):
        registry.add(folders[0])
        for action, number in changes:
            with suppress(MgoeError):
                change(registry, folders, action, number)
            assert is_whole(registry)


def name_of(folder: Path) -> str:
    return Bundle.open(folder, verify=False).name


def change(registry: Registry, folders: list[Path], action: str, number: int) -> None:
    if action == "add":
        registry.add(folders[number])
    elif action == "promote":
        registry.promote(name_of(folders[number]), WHY)
    elif action == "rollback":
        registry.rollback()
    elif action == "reject":
        registry.reject(name_of(folders[number]), WHY)
    elif action == "allow":
        registry.allow(name_of(folders[number]))
    else:
        registry.prune(number)


def busy(registry: Registry, folders: list[Path], seed: int, changes: int) -> None:
    """Change a registry at random."""
    drawn = random.Random(seed)
    for _ in range(changes):
        with suppress(MgoeError):
            action = drawn.choice(ACTIONS)
            change(registry, folders, action, drawn.randrange(len(folders)))


def forked(work: Callable[[], Any]) -> int:
    """Work in another process, and return its number. It only touches files, so a fork is safe."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        number = os.fork()
    if number:
        return number
    failed = 1
    try:
        work()
        failed = 0
    finally:
        os._exit(failed)


def test_a_process_that_is_killed_has_changed_all_or_nothing():
    drawn = random.Random(0)
    with made(4) as (registry, folders):
        registry.add(folders[0])
        for seed in range(100 if SOAK else 12):
            number = forked(partial(busy, registry, folders, seed, 10_000))
            time.sleep(drawn.random() * 0.05)
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)
            assert is_whole(registry)
        for version in registry.versions[-1:]:
            registry.promote(version.name, WHY)  # even if it is rejected, or its parent is
        registry.prune(0)
        assert is_whole(registry)
        names = {version.name for version in registry.versions}
        assert {path.name for path in (registry.path / "versions").iterdir()} == names, "nothing is left over"


def test_processes_that_change_it_at_once_leave_it_whole():
    with made(4) as (registry, folders):
        registry.add(folders[0])
        numbers = [forked(partial(busy, registry, folders, seed, 200 if SOAK else 15)) for seed in range(4)]
        while any(os.waitpid(number, os.WNOHANG) == (0, 0) for number in numbers[:1]):
            check_links(registry)
        assert [os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) for number in numbers[1:]] == [0, 0, 0]
        assert is_whole(registry)


def check_links(registry: Registry) -> None:
    """What a reader sees while others change the registry: aliases of one change."""
    folder = (registry.path / ".aliases").resolve()
    found = {link.name: Path(os.readlink(link)).name for link in folder.iterdir() if link.is_symlink()}
    assert found == json.loads((folder / "change.json").read_text())["aliases"]


@up_to(6)
@given(st.lists(st.booleans(), min_size=2, max_size=4))
def test_of_processes_that_promote_at_once_one_leaves_its_version_current(forced: list[bool]):
    """Release tests were against the version that was current. So of those that obey them, only the first
    promotes; those that are forced promote one after the other."""
    with made(len(forced) + 1) as (registry, folders):
        first, *names = (registry.add(folder) for folder in folders)
        registry.promote(first)
        for name in names:
            note_release(registry.place(name), name, first)
        start, go = os.pipe()
        numbers = [
            forked(lambda name=name, force=force: (os.read(start, 1), registry.promote(name, force)))
            for name, force in zip(names, (WHY if one else None for one in forced), strict=True)
        ]
        os.write(go, b"." * len(names))
        failed = [os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) != 0 for number in numbers]
        os.close(start)
        os.close(go)
        promoted = [change for change in registry.changes[-len(names) :] if change.action == "promote"]
        promoted = [change for change in promoted if change.version != first]
        assert {change.version for change in promoted} == {
            name for name, lost in zip(names, failed, strict=True) if not lost
        }
        assert not any(lost and force for lost, force in zip(failed, forced, strict=True))
        assert sum(not lost and not force for lost, force in zip(failed, forced, strict=True)) <= 1
        assert promoted[0].aliases["previous"] == first
        assert registry.aliases["current"] == promoted[-1].version
        assert is_whole(registry)


def test_what_the_next_training_continues_from_comes_and_goes_with_a_version():
    with made() as (registry, folders):
        folders[0].with_name("0.training").mkdir()
        first, second, _ = (registry.add(folder) for folder in folders)
        assert [path.name for path in registry.path.glob("versions/*.training")] == [f"{first}.training"]
        assert registry.prune(0) == ([first, second], [])
        assert not list(registry.path.glob("versions/*.training"))


def test_a_version_that_is_served_is_not_pruned():
    with made() as (registry, folders):
        first, second, third = (registry.add(folder) for folder in folders)
        assert registry.prune(3) == ([], [])
        held = Hold(registry.place(first))
        assert registry.prune(0) == ([second], [first])
        held.close()
        assert registry.prune(0) == ([first], [])
        assert [version.name for version in registry.versions] == [third]
        assert [one.name for one in registry.lineage(third)] == [third, second, first], "records stay"
        with pytest.raises(ConfigError, match="keep: must be at least 0"):
            registry.prune(-1)


def test_a_clock_that_went_back_reorders_nothing(monkeypatch: pytest.MonkeyPatch):
    with made() as (registry, folders):
        names = []
        for year, folder in zip((2027, 2026, 2025), folders, strict=True):
            monkeypatch.setattr(
                "mgoe.lifecycle.versions.now", lambda year=year: f"{year}-01-01T00:00:00+00:00"
            )
            names.append(registry.add(folder))
        assert [version.name for version in registry.versions] == names
        assert registry.prune(1) == (names[:1], [])


def test_what_cannot_be_added_is_refused_and_changes_nothing(tmp_path: Path):
    with made() as (registry, folders):
        with pytest.raises(BundleError, match="holds no registry; `mgoe registry add` makes one"):
            registry.promote("candidate")
        assert not registry.path.exists()
        with pytest.raises(BundleError, match="holds no bundle"):
            registry.add(tmp_path)
        with pytest.raises(
            BundleError, match=r"was made from .*, which this registry does not know; add that"
        ):
            registry.add(folders[1])
        registry.add(folders[0])
        (folders[1] / "weights").write_text("x")
        with pytest.raises(BundleError, match="does not match its checksum"):
            registry.add(folders[1])
        assert len(registry.versions) == 1
        (registry.path / "current").unlink()
        (registry.path / "current").mkdir()
        with pytest.raises(OutputError, match="in the place of an alias"):
            registry.promote("candidate")
        assert registry.aliases == {"candidate": name_of(folders[0])}


def test_a_version_is_named_by_its_name_the_beginning_of_it_or_an_alias():
    with made() as (registry, folders):
        name = registry.add(folders[0])
        assert {registry.find(one) for one in (name, name[:3], "candidate")} == {name}
        for wrong, message in {
            "current": "has no current version; `mgoe registry promote` sets it",
            "previous": "has no previous version; the second `mgoe registry promote` sets it",
            "": "must name one version, found 0",
            "nothing": "must name one version, found 0",
        }.items():
            with pytest.raises(BundleError, match=message):
                registry.find(wrong)


def test_a_full_disk_leaves_a_registry_as_it_was(monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with made() as (registry, folders):
        registry.add(folders[0])
        before = registry.changes
        monkeypatch.setattr("shutil.copytree", full)
        with pytest.raises(OutputError, match="No space left on device"):
            registry.add(folders[1])
        monkeypatch.setattr("os.symlink", full)
        with pytest.raises(OutputError, match="No space left on device"):
            registry.promote("candidate")
        monkeypatch.undo()
        assert registry.changes == before
        assert is_whole(registry)


def test_no_change_is_lost_or_half_made_where_no_byte_can_be_written():
    with made() as (registry, folders):
        first, second, _ = (registry.add(folder) for folder in folders)
        for name in (first, second):
            registry.promote(name, WHY)
        registry.reject("candidate", WHY)
        before = registry.changes
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            for act in (
                lambda: registry.promote(first, WHY),
                registry.rollback,
                lambda: registry.reject(name_of(folders[2]), "again"),
                lambda: registry.allow(name_of(folders[2])),
                lambda: registry.add(folders[0]),
            ):
                with pytest.raises(
                    OutputError, match=r"cannot be written: (\[Errno 27\] )?File too large; choose"
                ):
                    act()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert registry.changes == before
        assert is_whole(registry)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_registry_that_is_only_read_cannot_be_changed_and_says_so():
    with made(1) as (registry, folders):
        registry.promote(registry.add(folders[0]))
        registry.path.chmod(0o500)
        try:
            with pytest.raises(OutputError, match="cannot be written: Permission denied"):
                registry.reject("current", WHY)
            assert registry.place("current").is_dir()
        finally:
            registry.path.chmod(0o700)


def test_who_waits_too_long_for_another_change_is_told(monkeypatch: pytest.MonkeyPatch):
    with made() as (registry, folders):
        registry.add(folders[0])
        monkeypatch.setattr("mgoe.lifecycle.registry.WAIT", 0.1)
        with (
            FileLock(registry.path / ".lock"),
            pytest.raises(OutputError, match=r"another process has changed it for 0\.1 s; try again"),
        ):
            registry.promote()
