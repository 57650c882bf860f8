"""What a comparison has made already, and whether it still is what is asked for: cells of other settings never stand in one table."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mgoe._util.files import read_json, sha256, write_json
from mgoe.errors import MgoeError, OutputError
from mgoe.experiments.cell import DONE
from mgoe.experiments.folder import FREE, files_read
from mgoe.experiments.plan import EXAMPLES, REFERENCES, Entry, Log, Plan
from mgoe.experiments.tuning import concerning
from mgoe.graph.workplace import building
from mgoe.models import written_out

SOURCE = "source"
"""Key of the checksum of a log's files, which stands for where they lie; nothing follows from one that is not known."""

SEEDS = ("negatives.training_seed", "graph.seed", "seed")
"""Keys that a seed of the comparison decides. Only a search can differ in them: the place of anything else names its seed."""

UNREAD = "evaluation"
"""What no search reads, and what notes and lines of searches held until it was left out: it is passed over there."""

UNTOLD = "all"
"""Stands for every key where nothing tells what a part was made with."""


@dataclass(frozen=True)
class Part:
    """A file or folder of the results, and all that decides what it holds.

    Attributes:
        path: Where it lies; what was asked for lies beside it.
        asked: Plain values.
        done: Exists once it is finished.
        follows: What was made of it and has no note of its own that says so: it goes when this goes.
        unread: Plain values that it is not made with, though older notes and lines hold them.
    """

    path: Path
    asked: Mapping[str, Any]
    done: Path
    follows: tuple[Path, ...] = ()
    unread: Mapping[str, Any] = field(default_factory=dict)

    @property
    def note(self) -> Path:
        return note_of(self.path)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All that goes with it."""
        return self.path, *self.follows

    @property
    def finished(self) -> bool:
        """Whether it is, or anything that goes with it."""
        return self.done.exists() or any((path / DONE).exists() for path in self.follows)

    @property
    def differs(self) -> str:
        """The first key under which it was made with another value; nothing where there is none, and `UNTOLD` where its note is damaged."""
        if not self.note.exists():
            return UNTOLD if self.path.exists() else ""
        try:
            before = without(read_json(self.note), *self.unread)
        except OutputError:
            return UNTOLD
        asked = json.loads(json.dumps(self.asked))
        if None in (before.get(SOURCE), asked.get(SOURCE)):
            before, asked = without(before, SOURCE), without(asked, SOURCE)
        return _difference(before, asked)

    @property
    def digests(self) -> set[str]:
        """Of the settings, the seed and the files of the log that it is made with, the same wherever that is; not of code and machine.
        Older lines have that with what is unread."""
        return {digest_of(self.asked), digest_of({**self.asked, **self.unread})}

    def remove(self) -> None:
        """Take it away, the note last: a process that is killed meanwhile leaves what the next one takes away as well."""
        for path in reversed(self.paths):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def begin(self) -> None:
        """Note what it is made with from here on; of a log that could not be read before, what is known of it now."""
        unknown = (
            self.note.exists() and json.loads(self.note.read_text(encoding="utf-8")).get(SOURCE, "") is None
        )
        if not self.note.exists() or (unknown and not self.done.exists()):
            write_json(self.note, self.asked)


def note_of(path: Path) -> Path:
    """Where it is noted what a part was made with."""
    return path.with_name(f"{path.name}.asked.json")


def without(asked: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """All but some keys."""
    return {key: value for key, value in asked.items() if key not in names}


def digest_of(asked: Mapping[str, Any]) -> str:
    """Of what a part is made with; 1 and 1.0 are one."""
    plain = json.loads(json.dumps(asked), parse_int=float)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def outdated(parts: Iterable[Part], overwrite: bool) -> list[Part]:
    """What was made with other settings, or of another log, than are asked for now. It must go before anything is made.

    Args:
        parts: Of the comparison.
        overwrite: Whether finished parts may go.

    Raises:
        OutputError: A finished one would have to go, and must not.
    """
    found = [(part, key) for part in parts if (key := part.differs)]
    for part, key in found:
        if part.finished and not overwrite:
            what = (
                "was made of another log: the files hold something else now"
                if key == SOURCE
                else f"was made with another `{key}`"
            )
            if key == UNTOLD:
                what = f"cannot be told to be what is asked for: its note, {part.note}, is {'damaged' if part.note.exists() else 'gone'}"
            mend = "choose another --out, or --overwrite to make anew what differs"
            if key in SEEDS:
                before = read_json(part.note)["seed"]
                what = f"settings were searched with seed {before}, which must stay the first of `seeds`, found {part.asked['seed']}"
                mend = f"put {before} first, {mend}"
            raise OutputError(part.path, f"{what}; {mend}")
    return [part for part, _ in found]


def check_choice(plan: Plan, entries: Sequence[Entry], outdated: Iterable[Part]) -> None:
    """Refuse to take away what was not asked for. It cannot stay either, beside what is made with other settings.

    Args:
        plan: Of the comparison.
        entries: The cells that are chosen.
        outdated: What has to go.

    Raises:
        OutputError: Something finished has to go that no chosen cell is made of.
    """
    chosen = {entry.cell().folder for entry in entries}
    spared = {
        folder
        for entry in plan.entries
        if (folder := entry.cell().folder) not in chosen and (folder / DONE).exists()
    }
    needed = {part.path for part in parts_of(plan, [*entries, *map(plan.untouched, entries)])} - spared
    others = [
        part
        for part in outdated
        if spared.intersection(part.paths) or (part.finished and part.path not in needed)
    ]
    if others:
        cells = spared.intersection(path for part in others for path in part.paths)
        rule = f"must be made anew and is not of the chosen cells alone, found {len(cells)} finished ones of others that would go"
        mend = "choose another --out, or leave out --models, --seeds and --logs to make anew all that differs"
        raise OutputError(others[0].path, f"{rule}; {mend}")


def parts_of(plan: Plan, entries: Iterable[Entry]) -> list[Part]:
    """Everything that cells are made of, and the cells, each once."""
    entries = list(entries)
    sources = {
        name: checksum_of(log) for name, log in {entry.log.name: entry.log for entry in entries}.items()
    }
    found: dict[Path, Part] = {}

    def add(path: Path, asked: Mapping[str, Any], done: str = "", **more: Any) -> None:
        found.setdefault(path, Part(path, asked, path / done, **more))

    for entry in entries:
        log, stage = entry.log, entry.log.stage(entry.seed)
        source = {SOURCE: sources[log.name]}
        data = _data(entry) | source
        add(stage / "data", data, follows=(stage / EXAMPLES, log.path / REFERENCES))
        graph = log.graph(entry.seed, entry.contestant)
        add(graph, data | {"graph": _plain(entry)["graph"]}, follows=(building(graph),))
        tune = _search(plan, entry)
        add(entry.cell().folder, _all(entry) | source | {"tune": tune}, done=DONE)
        if log.world is not None:
            add(log.path / "world", _world(log))
        if tune is not None:
            base = entry.contestant.base
            cells = tuple(
                other.cell().folder
                for other in plan.entries
                if (other.log.name, other.contestant.base) == (log.name, base)
            )
            asked = _all(plan.untouched(entry)) | source | {"tune": tune}
            add(log.tuned(base), without(asked, UNREAD), follows=cells, unread={UNREAD: asked[UNREAD]})
    return list(found.values())


def _search(plan: Plan, entry: Entry) -> dict[str, Any] | None:
    """What is searched for an entry's model. Where no points are given it is what it was before there was a key for them."""
    if plan.settings.tune is None:
        return None
    tune, model = plan.settings.tune, plan.untouched(entry).contestant.settings()
    asked = concerning(model, tune)
    return asked.model_dump(mode="json", exclude=None if asked.first else {"first"})


def checksum_of(log: Log) -> str | None:
    """Checksum of the files that a log is read from; None for a simulated one, and where they cannot be read any more.

    Bytes are read once: each file's own checksum is kept in `source.json` and believed while its size and its time stay.

    Raises:
        OutputError: `source.json` is damaged.
    """
    if log.world is not None:
        return None
    data, kept = log.settings(0).data, sources_at(log)
    before, now = read_sources(kept) if kept.exists() else {}, {}
    try:
        files = files_read(data)
        files += sorted(file for file in Path(data.truth).rglob("*") if file.is_file()) if data.truth else []
        for file in files:
            known, stat = before.get(str(file), {}), file.stat()
            same = (known.get("bytes"), known.get("time_ns")) == (stat.st_size, stat.st_mtime_ns)
            now[str(file)] = (
                known
                if same
                else {"bytes": stat.st_size, "time_ns": stat.st_mtime_ns, "sha256": sha256(file)}
            )
    except (MgoeError, OSError):
        return None
    if now != before:
        write_json(kept, now)
    return hashlib.sha256("".join(now[str(file)]["sha256"] for file in files).encode()).hexdigest()[:16]


def sources_at(log: Log) -> Path:
    """Where checksums of a log's files are kept."""
    return log.path / "source.json"


def read_sources(path: Path) -> dict[str, Any]:
    """Size, time and checksum of each file of a log.

    Raises:
        OutputError: The file is damaged.
    """
    found = read_json(path)
    if not all(
        isinstance(one, dict) and {"bytes", "time_ns", "sha256"} <= one.keys() for one in found.values()
    ):
        raise OutputError(path, "holds no checksums of files; remove it, and `mgoe compare` writes it anew")
    return found


def _plain(entry: Entry) -> dict[str, Any]:
    """Settings of the run, but for what may change between two of them that are the same."""
    settings = entry.settings.model_dump(mode="json", exclude={"models", "jobs", "seeds"})
    for section, names in FREE.items():
        for name in names:
            settings[section].pop(name)
    for place in (settings["data"], settings["data"]["users"], settings["data"]["items"]):
        for name in (
            "log",
            "truth",
            "path",
        ):  # where files lie is no setting: their checksum tells them apart
            (place or {}).pop(name, None)
    return settings


def _world(log: Log) -> dict[str, Any]:
    return {"world": None if log.world is None else log.world.model_dump(mode="json")}


def _data(entry: Entry) -> dict[str, Any]:
    plain = _plain(entry)
    return {key: plain[key] for key in ("data", "tasks", "split", "negatives")} | _world(entry.log)


def _all(entry: Entry) -> dict[str, Any]:
    """With every switch of the model written out, so that another default is another setting."""
    model = written_out(entry.contestant.settings())
    training = {key: value for key, value in model.training.items() if key not in FREE["training"]}
    told = model.model_dump(mode="json") | {"training": training}
    return _plain(entry) | _world(entry.log) | {"model": told, "seed": entry.seed}


def _difference(before: Any, asked: Any) -> str:
    """Dotted key of the first difference."""
    if not (isinstance(before, dict) and isinstance(asked, dict)):
        return "" if before == asked else "value"
    for key in [*asked, *(key for key in before if key not in asked)]:
        if before.get(key) != asked.get(key):
            inner = _difference(before.get(key), asked.get(key))
            return key if inner in ("", "value") else f"{key}.{inner}"
    return ""
