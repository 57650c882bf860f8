"""`compare`: models x seeds x logs x variants."""

from pathlib import Path
from typing import Annotated

import typer

from mgoe.cli.options import Json, Set
from mgoe.cli.show import command, say, show, show_json


def compare(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG", help="YAML file with `logs:` and `models:`.", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Folder of the results. Finished cells are kept.", show_default=False
        ),
    ],
    sets: Set = None,
    models: Annotated[
        str | None,
        typer.Option(help="Run only these models and variants: mgoe,mgoe:table.", show_default=False),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Run only these seeds: 0,1.", show_default=False)] = None,
    logs: Annotated[str | None, typer.Option(help="Run only these logs.", show_default=False)] = None,
    stop_after: Annotated[
        str | None,
        typer.Option(
            metavar="LENGTH", help="Begin no cell after this time, such as 90m.", show_default=False
        ),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes side by side.")] = None,
    take: Annotated[
        list[Path] | None,
        typer.Option(
            help="Import cells that fit from a results.jsonl, or a folder of them. Repeatable.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Compute again what was made with other settings, but no cells outside the choice.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train every model with every seed on every log, and say which one leads by how much.

    The same command resumes.
    """
    from mgoe import experiments
    from mgoe.config import load_comparison
    from mgoe.errors import TrainingError
    from mgoe.evaluation import markdown

    settings = load_comparison(config, [*(sets or ()), *([f"jobs={jobs}"] if jobs else ())])
    result = experiments.compare(
        settings,
        out,
        models=_names(models),
        seeds=_numbers(seeds),
        logs=_names(logs),
        stop_after=None if stop_after is None else _seconds(stop_after),
        overwrite=overwrite,
        take=take or (),
        say=say,
        command=command(),
    )
    if as_json:
        leads = [lead for one in result.standings for lead in experiments.plain_leads(one)]
        show_json({"path": str(out), "leads": leads, "failed": result.failed, "waiting": result.waiting})
    else:
        typer.echo(markdown(result.standings))
        report, numbers = out / "comparison.html", out / "results.parquet"
        show(f"\ntables {out / 'tables.md'}\nreport {report}\nnumbers {numbers}")
        if result.waiting:
            show(f"not run yet: {_cells(result.waiting)}; the same command resumes")
    if result.failed:
        title, reason = next(iter(result.failed.items()))
        fix = "the same command, for all models, seeds and logs, retries what failed"
        raise TrainingError(f"{_cells(len(result.failed))} failed", f"{title}: {reason}; {fix}")


def _cells(count: int) -> str:
    return f"{count} cell{'s' * (count != 1)}"


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _numbers(text: str | None) -> list[int] | None:
    from mgoe.errors import ConfigError

    try:
        return None if text is None else [int(name) for name in text.split(",")]
    except ValueError:
        raise ConfigError(
            "--seeds", f"takes whole numbers with commas between them, found {text!r}"
        ) from None


def _seconds(text: str) -> int:
    import re

    from mgoe.config import seconds
    from mgoe.errors import ConfigError

    if not re.fullmatch(r"[1-9][0-9]*[smhdw]", text):
        raise ConfigError("--stop-after", f"takes a number and `s`, `m`, `h`, `d` or `w`, found {text!r}")
    return seconds(text)
