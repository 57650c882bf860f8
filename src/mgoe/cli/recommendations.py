"""`mgoe recommend`: the best items of the catalogue, for users who are named or for those of a file."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mgoe import batch
from mgoe._util.progress import ProgressBar
from mgoe.cli.shared import (
    BundlePath,
    Engine,
    Json,
    Master,
    Overwrite,
    Redis,
    RedisPassword,
    State,
    cluster_of,
    logger,
    open_bundle,
    show,
    show_blocks,
    show_json,
    show_written,
    table,
)
from mgoe.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from mgoe.bundle import Bundle

Value = TypeVar("Value")
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Only items with this value of a feature: --where category=shoes. Repeatable; several "
        "values of one feature are alternatives.",
    ),
]
MaxPer = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=NUMBER",
        help="Most items per value of a feature: --max-per category=2. Repeatable.",
    ),
]


UserIds = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[USER...]",
        help="Ids, as in the log. Put `--` before one that begins with a minus.",
        show_default=False,
    ),
]


def recommend(
    bundle: BundlePath,
    users: UserIds = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--users",
            metavar="FILE",
            help="Parquet or CSV file, folder or glob with the log's user column, instead of USER.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="With --users: the .parquet or .csv file to write; by default, CSV on standard output.",
            show_default=False,
        ),
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", help="Number of items per user.")] = 10,
    objective: Annotated[
        str | None,
        typer.Option(
            help="What to rank by, such as `click * buy^2`; by default, that the strongest binary task is "
            "done at all.",
            show_default=False,
        ),
    ] = None,
    exclude_known: Annotated[
        bool, typer.Option("--exclude-known", help="Leave out items in the user's history.")
    ] = False,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="ITEM", help="Leave out this item. Repeatable.")
    ] = None,
    at_least: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK=NUMBER", help="Least probability (or value): --at-least click=0.01. Repeatable."
        ),
    ] = None,
    where: Where = None,
    max_per: MaxPer = None,
    context: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A context feature: --context device=phone. Repeatable."),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Score every item, even if the bundle can retrieve candidates.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="With --users: processes of one thread each.")] = 1,
    engine: Engine = "local",
    master: Master = None,
    overwrite: Overwrite = False,
    state: State = None,
    redis: Redis = None,
    redis_password_file: RedisPassword = None,
    as_json: Json = False,
) -> None:
    """Show the best items of the catalogue for each user."""
    if bool(users) == (file is not None):
        rule = f"name users, or a file with --users, found {'both' if users else 'none'}"
        raise ConfigError("USER", f"{rule}; give one of them")
    if out is not None and file is None:
        raise ConfigError("--out", "is for the users of a file, found none; name it with --users")
    opened = open_bundle(bundle, state, redis, redis_password_file)
    wish = {
        "k": k,
        "objective": objective,
        "exclude_known": exclude_known,
        "exclude": exclude or (),
        "at_least": _last("--at-least", at_least, float, "click=0.01"),
        "where": _by_name("--where", where, str, "category=shoes"),
        "max_per": _last("--max-per", max_per, int, "category=2"),
        "context": _last("--context", context, str, "device=phone"),
        "exact": exact,
    }
    spark = cluster_of(opened, engine, master, out, overwrite, jobs)
    if spark and file and out:
        rows = batch.recommend_on_spark(opened, file, out, spark, overwrite, **wish)
        show_written("recommendations written", opened, rows, out, as_json)
    elif file is None:
        _show(opened, opened.recommend(users or (), **wish), as_json)
    else:
        with ProgressBar("recommending", unit="users") as bar:
            blocks = batch.recommend_users(opened, file, jobs, bar.update, **wish)
            show_blocks("recommendations written", opened, blocks, _entries, out, as_json)


def _show(opened: "Bundle", found: "pd.DataFrame", as_json: bool) -> None:
    import pyarrow as pa

    if as_json:
        show_json(_entries(opened, pa.Table.from_pandas(found, preserve_index=False)))
        return
    lines = table([str(column) for column in found.columns], left=3)
    for (*place,) in found.itertuples(index=False):
        user, rank, item, *values = place
        lines.add_row(str(user), str(rank), str(item), *(f"{value:.4g}" for value in values))
    show(lines)
    if found.empty:
        logger.info("no item is left: none passes the filters")


def _entries(opened: "Bundle", block: "pa.Table") -> list[dict[str, Any]]:
    """Return one entry per row of user, rank, item and tasks."""
    unseen = (opened.indices("user", block.column(0)) < 0).tolist()
    return [
        {
            "user": user,
            "rank": rank,
            "item": item,
            "score": score,
            "tasks": dict(zip(block.column_names[4:], values, strict=True)),
            "unseen_user": is_unseen,
        }
        for is_unseen, user, rank, item, score, *values in zip(
            unseen, *(column.to_pylist() for column in block.columns), strict=True
        )
    ]


def _by_name(
    option: str, texts: Sequence[str] | None, read: Callable[[str], Value], example: str
) -> dict[str, list[Value]]:
    """Return the values of a repeatable option by name."""
    found: dict[str, list[Value]] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        try:
            if not name or not equals:
                raise ValueError
            found.setdefault(name, []).append(read(value))
        except ValueError:
            kind = {str: "VALUE", int: "a whole number"}.get(read, "a number")
            raise ConfigError(
                option, f"takes NAME={kind}, found {text!r}; write it as in {example}"
            ) from None
    return found


def _last(
    option: str, texts: Sequence[str] | None, read: Callable[[str], Value], example: str
) -> dict[str, Value]:
    """Return the last value of each name of a repeatable option."""
    return {name: values[-1] for name, values in _by_name(option, texts, read, example).items()}
