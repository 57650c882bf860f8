"""`erase`."""

from pathlib import Path
from typing import Annotated

import typer

from mgoe.cli.shared import Json, Redis, RedisPassword, live_events, show_facts

REMAINS = 3
"""Exit code of `--verify` that finds something."""


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
