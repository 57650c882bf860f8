"""`registry list`, `show`, `add`, `promote`, `rollback`, `prune`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgoe.cli.shared import BundlePath, Json, examples, say, show, show_facts, show_json, table

if TYPE_CHECKING:
    from mgoe.release import Registry, Version

registry = typer.Typer(
    help="A folder of bundles with the aliases `candidate`, `current` and `previous`.", no_args_is_help=True
)
Folder = Annotated[
    Path, typer.Argument(metavar="REGISTRY", help="Folder of the registry.", show_default=False)
]
Name = Annotated[str, typer.Argument(metavar="[VERSION]", help="Name, beginning of a name, or alias.")]


@registry.command(
    name="list", epilog=examples("mgoe registry list bundles", "mgoe registry list bundles --json")
)
def list_(path: Folder, as_json: Json = False) -> None:
    """List the versions, oldest first, with their aliases, their parent and the end of their log."""
    found, aliases = _opened(path), _opened(path).aliases
    if as_json:
        show_json([_facts(version, aliases) for version in found.versions])
        return
    lines = table(("version", "aliases", "added", "model", "trained", "parent", "log until"), left=7)
    for version in found.versions:
        names = ", ".join(alias for alias, held in aliases.items() if held == version.name)
        until = version.log[1] if version.log else "-"
        facts = (version.added, version.model, version.trained, version.parent or "-", until)
        lines.add_row(version.name, names or "-", *facts)
    show(lines)


@registry.command(
    name="show", epilog=examples("mgoe registry show bundles", "mgoe registry show bundles 3f9a --json")
)
def show_(path: Folder, version: Name = "current", as_json: Json = False) -> None:
    """Show a version: where it is, its lineage back to a full training, its release test, and its history."""
    from mgoe._util.files import read_json
    from mgoe.release.registry import RELEASE

    found = _opened(path)
    name, lineage = found.find(version), found.lineage(version)
    tested = found.place(name) / RELEASE
    facts = _facts(lineage[0], found.aliases) | {
        "path": str(found.place(name)),
        "lineage": [one.name for one in lineage],
        "release": read_json(tested) if tested.exists() else None,
        "changes": [asdict(change) for change in found.changes if change.version == name],
    }
    show_facts(facts, as_json)


@registry.command(epilog=examples("mgoe registry add bundles runs/mine/bundle"))
def add(path: Folder, bundle: BundlePath, as_json: Json = False) -> None:
    """Copy a bundle into a registry, which is made if need be, and make it the candidate."""
    found = _opened(path)
    _say(found.add(bundle), found, as_json)


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
            help="Promote it whatever its release test says. The reason is recorded.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a version the current one, if its release test approved it. Services take it within a second."""
    found = _opened(path)
    _say(found.promote(version, force), found, as_json)


@registry.command(epilog=examples("mgoe registry rollback bundles"))
def rollback(path: Folder, as_json: Json = False) -> None:
    """Make the previous version the current one again, and the current one the previous."""
    found = _opened(path)
    _say(found.rollback(), found, as_json)


@registry.command(epilog=examples("mgoe registry prune bundles --keep 3"))
def prune(
    path: Folder,
    keep: Annotated[int, typer.Option(help="How many of the newest versions without an alias stay.")] = 5,
    as_json: Json = False,
) -> None:
    """Remove old versions. Those with an alias stay, and those that a service of this machine has open."""
    gone, served = _opened(path).prune(keep)
    if as_json:
        show_json({"removed": gone, "served": served})
        return
    say(
        f"removed {', '.join(gone) or 'nothing'}" + (f"; still served: {', '.join(served)}" if served else "")
    )


def _opened(path: Path) -> "Registry":
    from mgoe.release import Registry

    return Registry(path)


def _facts(version: "Version", aliases: dict[str, str]) -> dict[str, Any]:
    return {
        "version": version.name,
        "aliases": [alias for alias, held in aliases.items() if held == version.name],
        **{key: value for key, value in asdict(version).items() if key not in ("name", "number")},
    }


def _say(name: str, found: "Registry", as_json: bool) -> None:
    if as_json:
        show_json({"version": name, "aliases": found.aliases})
    else:
        say(f"{name}; " + ", ".join(f"{alias} {held}" for alias, held in sorted(found.aliases.items())))
