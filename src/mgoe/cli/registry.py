"""`registry list`, `show`, `add`, `test`, `compare`, `promote`, `rollback`, `reject`, `allow`, `prune`;
`cycle` and `erase`.
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import mgoe
from mgoe import lifecycle
from mgoe.cli.shared import (
    Adopt,
    BundlePath,
    Json,
    Redis,
    RedisPassword,
    Set,
    State,
    examples,
    live_events,
    show,
    show_facts,
    show_json,
    show_outcome,
    table,
)

if TYPE_CHECKING:
    from mgoe.lifecycle.versions import Version

HELD = 3
"""Exit code of a release test that does not approve."""


registry = typer.Typer(
    help="A folder of bundles with the aliases `candidate`, `current` and `previous`.", no_args_is_help=True
)
Folder = Annotated[
    Path, typer.Argument(metavar="REGISTRY", help="Folder of the registry.", show_default=False)
]
Name = Annotated[str, typer.Argument(metavar="[VERSION]", help="Name, beginning of a name, or alias.")]
Named = Annotated[
    str, typer.Argument(metavar="VERSION", help="Name, beginning of a name, or alias.", show_default=False)
]
Reason = Annotated[str, typer.Option(metavar="REASON", help="Why a version is rejected; it is recorded.")]
REMAINS = 3
"""Exit code of `--verify` that finds something."""


@registry.command(
    name="list", epilog=examples("mgoe registry list bundles", "mgoe registry list bundles --json")
)
def list_(path: Folder, as_json: Json = False) -> None:
    """List the versions, oldest first: aliases, parent, the end of their log, and why one is rejected."""
    found = lifecycle.Registry(path)
    if as_json:
        show_json([_facts(version, found) for version in found.versions])
        return
    heads = ("version", "aliases", "added", "model", "trained", "parent", "log until", "rejected")
    lines = table(heads, left=8)
    for version in found.versions:
        facts = _facts(version, found)
        names, parent, rejected = ", ".join(facts["aliases"]), version.parent, facts["rejected"]
        others = (version.added, version.model, version.trained, parent or "-", version.log[1])
        lines.add_row(version.name, names or "-", *others, rejected or "-")
    show(lines)


@registry.command(
    name="show", epilog=examples("mgoe registry show bundles", "mgoe registry show bundles 3f9a --json")
)
def show_(path: Folder, version: Name = "current", as_json: Json = False) -> None:
    """Show a version: where it is, its lineage back to a full training, its release test, and its history."""
    found = lifecycle.Registry(path)
    name, lineage = found.find(version), found.lineage(version)
    tested = lifecycle.Release.of(found.place(name))
    facts = _facts(lineage[0], found) | {
        "path": str(found.place(name)),
        "lineage": [one.name for one in lineage],
        "release": None if tested is None else tested.model_dump(mode="json"),
        "changes": [change.model_dump() for change in found.changes if change.version == name],
    }
    show_facts(facts, as_json)


@registry.command(epilog=examples("mgoe registry add bundles runs/mine/bundle"))
def add(path: Folder, bundle: BundlePath, adopt: Adopt = False, as_json: Json = False) -> None:
    """Copy a bundle into a registry, which is made if need be, and make it the candidate."""
    found = lifecycle.Registry(path)
    _say(found.add(bundle, adopt), found, as_json)


@registry.command(
    epilog=examples(
        "mgoe registry promote bundles",
        "mgoe registry promote bundles 3f9a --force 'the test window holds a sale'",
    )
)
def promote(
    path: Folder,
    version: Name = "candidate",
    force: Annotated[
        str | None,
        typer.Option(
            metavar="REASON",
            help="Promote it whatever its release test says, and even if it is rejected. The reason is "
            "recorded.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a version the current one, if its release test approved it. Services take it within a second."""
    found = lifecycle.Registry(path)
    _say(found.promote(version, force), found, as_json)


@registry.command(
    name="test",
    epilog=examples(
        "mgoe registry test bundles --log 'logs/2026-*.parquet'",
        "mgoe registry test bundles --state bundles/current.state --set margin=0.005",
    ),
)
def check(
    path: Folder,
    version: Name = "candidate",
    log: Annotated[
        list[str] | None,
        typer.Option(
            "--log",
            metavar="LOG",
            help="A file, folder or glob of the log. Rows that were learned before are left out. Repeatable.",
            show_default=False,
        ),
    ] = None,
    state: State = None,
    redis: Redis = None,
    redis_password_file: RedisPassword = None,
    sets: Set = None,
    as_json: Json = False,
) -> None:
    """Test a version against the current one on rows that neither has learned from: its release.json."""
    from mgoe.config import check_settings, overridden
    from mgoe.serving.scoring.onnx_process import prepare

    found = lifecycle.Registry(path)
    bounds = check_settings(lifecycle.Bounds, overridden({}, sets or ()), "--set")
    sources = lifecycle.Sources(log or (), live_events(state, redis, redis_password_file))
    candidate, current = (mgoe.load(found.place(one)) for one in (version, "current"))
    window = lifecycle.window_of(candidate, current, sources)
    prepare(candidate)
    tested = lifecycle.check_release(candidate, current, window, bounds)
    tested.save(candidate.path)
    show_facts(tested.model_dump(mode="json"), as_json)
    if not tested.approved:
        raise typer.Exit(HELD)


@registry.command(
    name="compare",
    epilog=examples(
        "mgoe registry compare bundles",
        "mgoe registry compare bundles 3f9a --state state --window 6h --json",
    ),
)
def compare_(
    path: Folder,
    version: Name = "candidate",
    baseline: Annotated[
        str, typer.Option(metavar="VERSION", help="What answered: name, beginning of a name, or alias.")
    ] = "current",
    state: Annotated[
        Path | None,
        typer.Option(
            help="Folder of live events: the --state of the service; REGISTRY/current.state by default.",
            show_default=False,
        ),
    ] = None,
    redis: Redis = None,
    redis_password_file: RedisPassword = None,
    window: Annotated[
        str, typer.Option(help="How long after an answer an event or an exposure belongs to it.")
    ] = "1d",
    as_json: Json = False,
) -> None:
    """Compare a version that `mgoe serve --shadow` scored with the one that answered.

    Prints how far their scores differ and, where labels are known, which of them predicted better.
    """
    found, state = lifecycle.Registry(path), state or path / "current.state"
    current = mgoe.load(found.place(baseline))
    events = str(live_events(state, redis, redis_password_file))
    report = lifecycle.compare_shadow(found.find(version), current, state, events, window)
    show_facts(report.model_dump(mode="json"), as_json)


@registry.command(
    epilog=examples(
        "mgoe registry rollback bundles",
        "mgoe registry rollback bundles 3f9a --reason 'clicks fell by a tenth'",
    )
)
def rollback(
    path: Folder,
    version: Name = "previous",
    reason: Reason = "it was rolled back",
    as_json: Json = False,
) -> None:
    """Make an earlier version the current one again, and reject the one that was current."""
    found = lifecycle.Registry(path)
    _say(found.rollback(version, reason), found, as_json)


@registry.command(
    epilog=examples("mgoe registry reject bundles candidate --reason 'learned a day of broken events'")
)
def reject(path: Folder, version: Named, reason: Reason, as_json: Json = False) -> None:
    """Bar a version, and what was made from it, from being candidate or current until it is allowed."""
    found = lifecycle.Registry(path)
    _say(found.reject(version, reason), found, as_json)


@registry.command(epilog=examples("mgoe registry allow bundles 3f9a"))
def allow(path: Folder, version: Named, as_json: Json = False) -> None:
    """Undo a rejection. Test and promote the version then, or add it again."""
    found = lifecycle.Registry(path)
    _say(found.allow(version), found, as_json)


@registry.command(epilog=examples("mgoe registry prune bundles --keep 3"))
def prune(
    path: Folder,
    keep: Annotated[int, typer.Option(help="How many of the newest versions without an alias stay.")] = 5,
    as_json: Json = False,
) -> None:
    """Remove old versions. Those with an alias stay, and those that a service of this machine has open."""
    gone, served = lifecycle.Registry(path).prune(keep)
    still = f"; still served: {', '.join(map(str, served))}" if served else ""
    line = f"removed {', '.join(map(str, gone)) or 'nothing'}{still}"
    show_outcome(line, {"removed": gone, "served": served}, as_json)


def cycle(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG", help="YAML file of a cycle.", show_default=False),
    ],
    sets: Set = None,
    metrics: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write what became of the round, for the collector `textfile` of node_exporter: a name "
            "that ends with .prom.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Test the candidate and promote or hold it, then learn from new rows. Prints one line of JSON per step.

    Exit codes: 0 if nothing was refused, 3 if the candidate was, 4 if there are too few new rows.
    """
    import json

    from mgoe.lifecycle.cycle import run_measured

    run = lifecycle.run_cycle if metrics is None else partial(run_measured, file=metrics)
    code = run(lifecycle.load_cycle(config, sets or ()), lambda step: print(json.dumps(step), flush=True))
    if code:
        raise typer.Exit(code)


def _facts(version: "Version", found: "lifecycle.Registry") -> dict[str, Any]:
    return {
        "version": version.name,
        "aliases": [alias for alias, held in found.aliases.items() if held == version.name],
        **{key: value for key, value in asdict(version).items() if key not in ("name", "number")},
        "rejected": found.rejection(version.name),
    }


def _say(name: str, found: "lifecycle.Registry", as_json: bool) -> None:
    held = ", ".join(f"{alias} {version}" for alias, version in sorted(found.aliases.items()))
    show_outcome(f"{name}; {held}", {"version": name, "aliases": found.aliases}, as_json)


def erase(
    registry: Annotated[Path, typer.Option(help="Folder of the registry.", show_default=False)],
    user: Annotated[
        list[str] | None,
        typer.Option("--user", metavar="ID", help="Who is erased. Repeatable.", show_default=False),
    ] = None,
    users: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text file with one id per line.", show_default=False)
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="The --state of the service; REGISTRY/current.state by default, if it is there.",
            show_default=False,
        ),
    ] = None,
    redis: Redis = None,
    redis_password_file: RedisPassword = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            "--log",
            metavar="LOG",
            help="Parquet file, folder or glob of the log to rewrite. Repeatable.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Change nothing, and say what remains of all who were erased, and of these users.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Erase users from stores, versions and logs, and make a new current version without them.

    Without a user, the list of erasures is applied again to what has come back from a backup. With --verify
    the exit code is 3 if something remains.
    """
    from mgoe.lifecycle.erasure import erase as remove
    from mgoe.lifecycle.erasure import verify

    ids = [*(user or ()), *(users.read_text(encoding="utf-8").split("\n") if users else ())]
    asked = [one.strip() for one in ids if one.strip()]
    where = {"state": state, "redis": live_events(None, redis, redis_password_file), "log": log or ()}
    if check:
        found = verify(registry, asked, **where)
    else:
        found = remove(registry, asked, **where)
    show_facts(found, as_json)
    if found.get("remains"):
        raise typer.Exit(REMAINS)
