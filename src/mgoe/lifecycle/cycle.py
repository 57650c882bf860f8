"""`mgoe cycle`: one round of testing what waits, and learning what is new.

Test, then train: the candidate of the round before and the current bundle predict the rows that have come
since, before anything learns from them. The candidate becomes current or is held. Then the current bundle
learns from all rows that it lacks, and the result waits as the next candidate. With `retention`, rows that
every kept version holds are removed from the log of the service when they are old.

Every step leaves a state from which the same command resumes: the registry changes at once or not at all, and
what is being made is in `.cycle` of the registry until it is a version, which is the last step.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from mgoe._util.files import exclusive, remove_folder, write_text
from mgoe.bundle import MANIFEST, Bundle
from mgoe.bundle.held import START, Mark, exposures_of, mark_of, read_held
from mgoe.config import Settings, check_settings, read_yaml, seconds
from mgoe.config.base import PositiveLength, Texts
from mgoe.data.erasures import Erasures
from mgoe.data.waiting import longest_delay
from mgoe.errors import BundleError, BusyError, ConfigError
from mgoe.lifecycle.acceptance import Bounds, Release, check_release, window_of
from mgoe.lifecycle.bundle_update import Groups, update
from mgoe.lifecycle.erased_bundle import check_erased
from mgoe.lifecycle.erasure import Deployment
from mgoe.lifecycle.new_rows import Sources
from mgoe.lifecycle.registry import Registry
from mgoe.lifecycle.versions import CANDIDATE, CURRENT
from mgoe.serving import ServiceLog, every, open_log
from mgoe.serving.events.chain import Kind
from mgoe.serving.scoring.onnx_process import prepare

DONE, HELD, WAITING = 0, 3, 4
"""Exit codes: nothing was refused; the candidate was, in this round; there are too few new rows."""
Report = Callable[[dict[str, Any]], None]
"""Receives a step that has ended, with what came of it."""
MIN_AGE = 86_400
"""Seconds that a row stays at least: a row that is sent again is recognised by it, and what came of an answer
is read from it."""
FAILED = -1
"""A round that ended in an error."""
RESULTS = {"done": DONE, "held": HELD, "waiting": WAITING, "failed": FAILED}


class CycleSettings(Settings):
    """The settings of a cycle.

    Example:
        >>> CycleSettings(registry="bundles", log="logs/today.parquet").weights
        'continue'
    """

    registry: Path
    """Folder of the registry. Its current version is what the first round starts from."""
    log: Texts = Field(default=[])
    """Parquet or CSV files, folders or globs of the log; rows that were learned before are left out."""
    state: str | None = None
    """Instead of files: state folder of the service, with its live events and exposures, or the address of
    its Redis, see `RedisServer`."""
    weights: Literal["continue", "keep"] = "continue"
    """`keep` them, and renew graph and calibration alone."""
    groups: Groups = "learn"
    """`keep` leaves sketch and macro nodes as they are."""
    rows: int = Field(default=1000, ge=1)
    """Examples that must have come before anything is tested or learned."""
    full: Literal["when due", "never"] = "never"
    """Whether the next candidate is trained from scratch, on the files of its log and `log`, once that is
    due."""
    keep: int = Field(default=5, ge=0)
    """Number of versions without an alias that stay."""
    retention: PositiveLength | None = None
    """How old rows become in the logs of the service that every version holds; None keeps them for ever."""
    bounds: Bounds = Bounds()
    """What a candidate may lose."""

    @model_validator(mode="after")
    def _check_sources(self) -> "CycleSettings":
        if bool(self.log) == (self.state is not None):
            raise ConfigError("cycle", "reads either `log` or `state`, found both or none; give one of them")
        if self.retention is not None and self.state is None:
            raise ConfigError("cycle.retention", "trims `state`, found files, which stay; leave it out")
        if self.retention is not None and seconds(self.retention) < MIN_AGE:
            raise ConfigError("cycle.retention", f"must be at least 1d, found {self.retention}; keep more")
        if self.full == "when due" and not self.log:
            raise ConfigError(
                "cycle.full",
                "trains on files, found `state`, whose events are not the whole log; name files by `log` "
                "(mgoe log export writes some), or set it to never",
            )
        return self

    @property
    def sources(self) -> Sources:
        """Where new rows come from."""
        return Sources(self.log, self.state, later=True)


def load_cycle(path: Path | str, overrides: Sequence[str] = ()) -> CycleSettings:
    """Read the YAML file of a cycle.

    Raises:
        ConfigError: The file is missing or not YAML, a key is unknown, or a value breaks its rule.

    Example:
        >>> size = Path("cycle.yaml").write_text("{registry: bundles, log: logs/events}")
        >>> load_cycle("cycle.yaml", ["rows=500"]).rows
        500
    """
    rule = "must hold a mapping with `registry:` and either `log:` or `state:`"
    return check_settings(CycleSettings, read_yaml(path, overrides, rule), path)


def run_cycle(settings: CycleSettings, report: Report) -> int:
    """Run one round, or the rest of one that was interrupted.

    Args:
        settings: What to do.
        report: Receives each step.

    Returns:
        The exit code: `DONE`, `HELD` or `WAITING`.

    Raises:
        BundleError: The registry has no current version.
        BusyError: Another process runs a cycle or an erasure of this registry.
        MgoeError: A row breaks a rule, or something cannot be written; nothing is lost.
    """
    registry, work = Registry(settings.registry), settings.registry / ".cycle"
    current, code, started = Bundle.open(registry.place(CURRENT)), DONE, time.monotonic()

    def step(name: str, **facts: Any) -> None:
        report({"step": name, **facts, "seconds": round(time.monotonic() - started, 1)})

    with exclusive(work, "a cycle", "runs"):
        work.mkdir(exist_ok=True)
        check_erased(erasures := Erasures.of(registry.path), current)
        if settings.state is not None and erasures.entries:
            with Deployment(registry.path, settings.state) as ours:
                ours.erase(erasures)
        _clear(registry, work)
        waiting = registry.aliases.get(CANDIDATE)
        tested = None if waiting is None else _tested(registry, waiting, current)
        if tested is None or not tested.approved:
            candidate = current if waiting is None else Bundle.open(registry.place(waiting))
            window = window_of(candidate, current, settings.sources, work)
            rows = 0 if window is None else len(window[0])
            step("collect", rows=rows, needed=settings.rows)
            if tested is not None:
                step("held", version=tested.candidate, current=current.name, since=tested.time)
            if rows < settings.rows:
                return WAITING
            if waiting is not None and tested is None:
                prepare(candidate)
                tested = check_release(candidate, current, window, settings.bounds)
                facts = {"approved": tested.approved, "reasons": tested.reasons, "rows": tested.rows}
                step("test", version=waiting, **facts)
                tested.save(candidate.path)  # from here on it is told no more
                if not tested.approved:
                    step("hold", version=waiting, current=current.name)
                    code = HELD
        if tested is not None and tested.approved:
            current = Bundle.open(registry.place(registry.promote(tested.candidate)))
            step("promote", version=current.name)
        removed, served = registry.prune(settings.keep)
        step("prune", removed=removed, served=served)
        if settings.retention is not None and settings.state is not None:
            step("trim", **trim(registry, settings.state, seconds(settings.retention)))
        due = current.manifest.due
        full = bool(due) and settings.full == "when due"
        if due:
            step("due", version=current.name, reasons=due, full=full)
        made = registry.lineage(_learn(registry, current, work, settings, full))[0]
        step("learn", version=made.name, trained=made.trained, parent=made.parent)
    return code


def _clear(registry: Registry, work: Path) -> None:
    """Remove what a killed process left, except a bundle that is not finished yet."""
    names = {version.name for version in registry.versions}
    for made in work.glob(f"*/bundle/{MANIFEST}"):
        if Bundle.open(made.parent, verify=False).name in names:
            remove_folder(made.parents[1])
    for left in (*work.glob(".gone-*"), *work.glob("mgoe-*")):
        shutil.rmtree(left, ignore_errors=True)


def _tested(registry: Registry, version: str, current: Bundle) -> Release | None:
    """Return what a test against the current version found before; None if there was none."""
    found = Release.of(registry.place(version))
    same = found is not None and (found.candidate, found.baseline) == (version, current.name)
    return found if same else None


def _learn(registry: Registry, current: Bundle, work: Path, settings: CycleSettings, full: bool) -> str:
    """Make the next candidate of all rows that the current bundle lacks, and return its name.

    Args:
        registry: The registry.
        current: Its current bundle.
        work: Folder of unfinished work.
        settings: How to learn.
        full: Train from scratch on all rows, those of the current bundle included.
    """
    for other in work.glob("*"):
        if other.name != current.name:  # was not promoted, or not by this cycle
            remove_folder(other)
    place = work / current.name
    out = place / "bundle"
    if not (out / MANIFEST).exists():
        place.mkdir(parents=True, exist_ok=True)
        weights, groups = ("new", "learn") if full else (settings.weights, settings.groups)
        update(current.path, settings.sources, out, weights=weights, groups=groups)
    name = registry.add(out)
    remove_folder(place)  # at once: a part of it would be taken for one that is being made
    return name


def trim(registry: Registry, state: str, keep: int, now: int | None = None) -> dict[str, str]:
    """Remove events and exposures that the graph of every version of a registry holds, if they are old.

    So a service may still return to any of these versions, and loses nothing. A version that was not made
    from a log of the service keeps all of it, until it is pruned. The log is cut before the first record that
    must stay, of whatever kind.

    Args:
        registry: The registry.
        state: State folder or Redis server of its service.
        keep: How old rows must be, in seconds.
        now: Microseconds since 1970; by default the present.

    Returns:
        The positions before which events and exposures are gone; empty where all are still there.

    Raises:
        StoreError: A log is away, or damaged.
        BundleError: A version is damaged.
    """
    opened = [Bundle.open(registry.place(one.name), verify=False) for one in registry.versions]
    held = [read_held(bundle.path) for bundle in opened]
    moment = (time.time_ns() // 1000 if now is None else now) - keep * 1_000_000
    with closing(open_log(state, make=False)) as log:
        sources = log.identity, exposures_of(log.identity)
        marks = [[mark_of(one, source) for source in sources] for one in held]
        least = min((learned for learned, _ in marks), key=lambda mark: mark.number)
        events, exposures = last_before(log, least, moment), min(shown.number for _, shown in marks)
        exposures = min(exposures, log.before(moment))
        items = min(max(one.number for one in both) for both in marks)  # all up to its last row were read
        delay = max(longest_delay(bundle.settings.tasks) for bundle in opened)
        log.forget(events.number, exposures, items, delay)
        return {"events": log.begin(Kind.EVENT).position, "exposures": log.begin(Kind.EXPOSURE).position}


def last_before(log: ServiceLog, upto: Mark, moment: int) -> Mark:
    """Return the last mark up to another one whose event, and all before it, were before a moment."""
    last = START
    for mark, event in every(log):
        if mark.number > upto.number or event.time >= moment:
            break
        last = mark
    return last


def run_measured(settings: CycleSettings, report: Report, file: Path) -> int:
    """Run a round as `run_cycle` does, and replace the file when it has ended, however it ended.

    A round that did not begin, because another one runs, leaves the file to that one.

    Raises:
        ConfigError: The file has no folder.
        OutputError: The file cannot be written.
        MgoeError: As for `run_cycle`.
    """
    if not file.parent.is_dir():
        raise ConfigError(
            "--metrics", f"must be a file in a folder that exists, found {str(file)!r}; make the folder"
        )
    found, code, began, busy = dict[str, dict[str, Any]](), FAILED, time.time(), False

    def note(step: dict[str, Any]) -> None:
        found[step["step"]] = step
        report(step)

    try:
        code = run_cycle(settings, note)
    except BusyError:
        busy = True
        raise
    finally:
        if not busy:
            current = promoted(Registry(settings.registry))
            write_text(file, page_of(code, found, time.time() - began, current))
    return code


def page_of(
    code: int, steps: Mapping[str, Mapping[str, Any]], seconds: float, current: tuple[str, float]
) -> str:
    """Return the figures of a round in Prometheus's text format.

    Args:
        code: Its exit code, or `FAILED`.
        steps: Its steps by name.
        seconds: How long it took.
        current: The current version, and when it became that, in seconds since 1970.
    """
    held = (steps.get("hold") or steps.get("held") or {}).get("version", "")
    results = {f'{{result="{name}"}}': int(code == RESULTS[name]) for name in RESULTS}
    figures: dict[str, tuple[str, Mapping[str, float]]] = {
        "cycle_end_timestamp_seconds": ("When the last round of the cycle ended.", {"": time.time()}),
        "cycle_seconds": ("How long it took.", {"": seconds}),
        "cycle_rows": ("New examples that it found.", {"": steps.get("collect", {}).get("rows", 0)}),
        "cycle_result": ("What came of it.", results),
        "cycle_held": ("What it held, or found held.", {f'{{version="{held}"}}': int(bool(held))}),
        "current_timestamp_seconds": (
            "When the current version became that.",
            {f'{{version="{current[0]}"}}': current[1]},
        ),
    }
    return "".join(
        f"# HELP mgoe_{name} {text}\n# TYPE mgoe_{name} gauge\n"
        + "".join(f"mgoe_{name}{labels} {value}\n" for labels, value in values.items())
        for name, (text, values) in figures.items()
    )


def promoted(registry: Registry) -> tuple[str, float]:
    """Return the current version and when it became that, in seconds since 1970; now if there is none."""
    with suppress(BundleError):
        made = [change for change in registry.changes if change.aliases.get(CURRENT) == change.version]
        if made:
            return made[-1].version, datetime.fromisoformat(made[-1].time).timestamp()
    return "", time.time()
