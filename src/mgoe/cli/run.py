"""`run`, `train`, `compare`: from a configuration to a bundle, for all models or for one, or to tables."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mgoe import batch, experiments
from mgoe.cli.shared import (
    Config,
    Json,
    Out,
    Overwrite,
    Set,
    command,
    show,
    show_json,
    show_leads,
    show_notices,
    show_outcome,
    table,
)
from mgoe.errors import ConfigError, TrainingError

Force = Annotated[
    bool,
    typer.Option("--force", help="Go ahead even if memory or disk do not suffice for certain."),
]


def plan(
    config: Config,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder that the run would write, for its disk.")
    ] = Path(),
    sets: Set = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Say what `run` would take in each stage: rows, time, memory and disk. The log is scanned."""
    from mgoe.data import read_settings

    found = experiments.foresee(read_settings(config, sets or ()), out, experiments.slowness())
    if found.excluded is not None and not force:
        raise found.excluded
    if as_json:
        show_json({**found.facts, "stages": [vars(stage) for stage in found.stages]})
        return
    shown = table(("stage", "rows", "time", "CPU s", "memory, GiB", "disk, GiB"))
    for one in found.stages:
        shown.add_row(
            one.stage,
            f"{one.rows:,}",
            experiments.duration(one.seconds),
            f"{one.cpu_seconds:,.0f}",
            f"{one.memory_gib:,.1f}",
            f"{one.disk_gib:,.1f}",
        )
    show(shown)
    show(
        "\nabout {time} on {cores} core{s}; {memory_gib:.1f} GiB of memory, of {machine_memory_gib:.1f}; "
        "{disk_gib:.1f} GiB of disk, of {free_disk_gib:.1f} free".format(
            time=experiments.duration(found.facts["seconds"]),
            s="s" * (found.facts["cores"] != 1),
            **found.facts,
        )
    )
    show_notices([str(found.excluded)] if found.excluded else [])


def run(
    config: Config,
    out: Out,
    sets: Set = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Training processes side by side.")] = None,
    incumbent: Annotated[
        Path | None,
        typer.Option(
            help="Scores of your current ranker for the test rows that `mgoe rows` writes, to compare with. "
            "A finished run is kept.",
            show_default=False,
        ),
    ] = None,
    tune: Annotated[
        str | None,
        typer.Option(
            metavar="LENGTH",
            help="Search batch size, learning rate and epochs for this time before, such as 10m.",
            show_default=False,
        ),
    ] = None,
    overwrite: Overwrite = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Prepare, build, train every model with every seed, compare, bundle and report."""
    from mgoe.data import read_settings
    from mgoe.evaluation import rich_table
    from mgoe.evaluation.findings import finding, page_findings

    settings = read_settings(config, [*(sets or ()), *([f"jobs={jobs}"] if jobs else ())])
    result = experiments.run(
        settings, out, overwrite=overwrite, incumbent=incumbent, tune=tune, force=force, command=command()
    )
    paths = {"path": str(out), "bundle": str(out / "bundle"), "report": str(out / "report.html")}
    if as_json:
        show_json({**paths, "metrics": result.rows})
        return
    for line in filter(None, (finding(result.standings), result.standings.served)):
        show(f"{line}\n")
    show_notices(result.standings.notices)
    for line in page_findings(result.standings):
        show(line)
    show("")
    show(rich_table(result.rows, name=f"Test, {len(settings.seeds)} seed{'s' * (len(settings.seeds) > 1)}"))
    show_leads(experiments.leads(out))
    show(f"\nreport {paths['report']}\nbundle {paths['bundle']}\nnumbers {out / 'metrics.json'}")


def rows(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The --out of a finished run.", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="The .parquet or .csv file to write.", show_default=False),
    ],
    split: Annotated[Literal["train", "valid", "test"], typer.Option(help="Part of the log.")] = "test",
    seed: Annotated[
        int | None, typer.Option(help="Seed of the models; the first by default.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the rows that a run was measured on: labels and the predictions of every model.

    Score the same rows with your current ranker, and compare by `mgoe run --incumbent`.
    """
    import pyarrow as pa

    found = pa.Table.from_pandas(experiments.rows(run, split, seed), preserve_index=False)
    written = batch.write_blocks(iter([found]), out)
    values = {"path": str(out), "rows": written, "columns": found.column_names}
    show_outcome(f"{written:,} rows written: {out}", values, as_json)


def train(
    config: Config,
    out: Out,
    model: Annotated[
        str | None,
        typer.Option(
            help="One of the models of the configuration; the first by default.", show_default=False
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="The first seed of the configuration by default.", show_default=False),
    ] = None,
    resume: Annotated[
        Literal["auto", "never"],
        typer.Option(help="Resume interrupted training from its last checkpoint, or start over."),
    ] = "auto",
    sets: Set = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train one model and write its bundle. `run` with the same --out trains the other models."""
    from mgoe.data import read_settings
    from mgoe.evaluation import rich_table

    rows = experiments.train(
        read_settings(config, sets or ()),
        out,
        model,
        seed,
        overwrite=overwrite,
        resume=resume == "auto",
    )
    if not rows:  # another process shows them
        return
    if as_json:
        show_json({"path": str(out), "bundle": str(out / "bundle"), "metrics": rows})
        return
    show(rich_table(rows, name="Test"))
    show(f"\nbundle {out / 'bundle'}")


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
            metavar="LENGTH", help="Start no new cell after this time, such as 90m.", show_default=False
        ),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes side by side.")] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Recompute results of other settings; refuses to remove finished cells outside the choice.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train every model with every seed on every log, and say which one leads by how much.

    The same command resumes.
    """
    from mgoe.config import load_comparison, seconds_of
    from mgoe.evaluation import markdown

    result = experiments.compare(
        load_comparison(config, [*(sets or ()), *([f"jobs={jobs}"] if jobs else ())]),
        out,
        models=_names(models),
        seeds=_numbers(seeds),
        logs=_names(logs),
        stop_after=None if stop_after is None else seconds_of(stop_after, "--stop-after"),
        overwrite=overwrite,
        command=command(),
    )
    if as_json:
        leads = [lead for one in result.standings for lead in experiments.plain_leads(one)]
        show_json({"path": str(out), "leads": leads, "failed": result.failed, "waiting": result.waiting})
    else:
        typer.echo(markdown(result.standings))
        show(
            f"\ntables {out / 'tables.md'}\nreport {out / 'comparison.html'}"
            f"\nnumbers {out / 'results.parquet'}"
        )
        if result.waiting:
            show(f"not run yet: {_cells(result.waiting)}; the same command resumes")
    if result.failed:
        title, reason = next(iter(result.failed.items()))
        raise TrainingError(
            f"{_cells(len(result.failed))} failed",
            f"{title}: {reason}; the same command, for all models, seeds and logs, retries what failed",
        )


def _cells(count: int) -> str:
    return f"{count} cell{'s' * (count != 1)}"


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _numbers(text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(name) for name in text.split(",")]
    except ValueError:
        raise ConfigError(
            "--seeds", f"takes whole numbers with commas between them, found {text!r}"
        ) from None
