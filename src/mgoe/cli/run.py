"""`run`, `train`: from a configuration to a bundle, for all models or for one."""

from typing import Annotated, Literal

import typer

from mgoe.cli.options import Config, Json, Out, Overwrite, Set
from mgoe.cli.show import command, say, show, show_json, show_leads


def run(
    config: Config,
    out: Out,
    sets: Set = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Training processes side by side.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Prepare, build, train every model with every seed, compare, bundle and report."""
    from mgoe import experiments
    from mgoe.config import load_settings
    from mgoe.evaluation import rich_table

    settings = load_settings(config, [*(sets or ()), *([f"jobs={jobs}"] if jobs else ())])
    result = experiments.run(settings, out, overwrite=overwrite, say=say, command=command())
    paths = {"path": str(out), "bundle": str(out / "bundle"), "report": str(out / "report.html")}
    if as_json:
        show_json({**paths, "metrics": result.rows})
        return
    show(rich_table(result.rows, name=f"Test, {len(settings.seeds)} seed{'s' * (len(settings.seeds) > 1)}"))
    show_leads(experiments.leads(out))
    show(f"\nreport {paths['report']}\nbundle {paths['bundle']}\nnumbers {out / 'metrics.json'}")


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
    from mgoe import experiments
    from mgoe.config import load_settings
    from mgoe.evaluation import rich_table

    settings, resumes = load_settings(config, sets or ()), resume == "auto"
    rows = experiments.train(settings, out, model, seed, overwrite=overwrite, resume=resumes, say=say)
    if not rows:  # another process shows them
        return
    if as_json:
        show_json({"path": str(out), "bundle": str(out / "bundle"), "metrics": rows})
        return
    show(rich_table(rows, name="Test"))
    show(f"\nbundle {out / 'bundle'}")
