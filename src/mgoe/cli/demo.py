"""`demo`: a first run on a simulated log, in one command."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgoe import experiments
from mgoe._util.extras import install
from mgoe._util.progress import ProgressBar
from mgoe.cli.doctor import count_cores
from mgoe.cli.shared import Json, Overwrite, command, logger, show, show_json, show_leads
from mgoe.errors import OutputError

if TYPE_CHECKING:
    from mgoe.bundle import Bundle

NEEDS = "about three minutes on two free cores, 3 GiB of memory, 0.2 GiB of disk"
"""What it was measured to need, rounded up."""
SHOWN = 3
"""Recommendations that are shown."""


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the log and of the run.")] = Path(
        "mgoe-demo"
    ),
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Simulate a log, train models on it, compare them, and show what the first one recommends and why.

    The same command resumes. If everything is finished, it shows the results again.
    """
    from mgoe.config import load_settings
    from mgoe.evaluation import reachable_shares, rich_table

    log, config, run = out / "log", out / "demo.yaml", out / "run"
    _check_folder(out, (log, config, run))
    jobs = min(2, count_cores())
    logger.info(
        f"The demo needs {NEEDS}.\nIt does what these commands do:\n"
        f"  mgoe simulate --out {log} --form events\n"
        f"  mgoe init {log}/events --out {config}\n"
        f"  mgoe run {config} --out {run} --jobs {jobs} --set data.truth={log}/truth\n"
        "Ctrl-C stops it; the same command resumes."
    )
    _prepare(log, config, overwrite)
    places = {"log": log / "events", "truth": log / "truth"}
    sets = [f"data.{key}={json.dumps(str(path))}" for key, path in places.items()]
    settings = load_settings(config, [*sets, f"jobs={jobs}"])
    result = experiments.run(settings, run, overwrite=overwrite, reuse=not overwrite, command=command())
    shares = reachable_shares(result.rows)
    if as_json:
        paths = {"path": str(run), "bundle": str(run / "bundle"), "report": str(run / "report.html")}
        show_json({**paths, "metrics": result.rows, "reachable": shares})
        return
    compact = [row for row in result.rows if row["metric"] in ("auc", "ranking")]  # 80 columns wide
    show(rich_table(compact, name="Test, one seed; mean of AUC and GAUC"))
    show_leads(experiments.leads(run))
    reached = ", ".join(f"{model} {100 * share:.0f} %" for model, share in shares.items())
    show(f"of the reachable gain over chance: {reached}")
    bundle, user = result.bundle, _busiest_user(log)
    show(
        f"\nFor user {user}, who has the longest history, the best new items by {bundle.strongest}\n"
        "(ties are macro edges, groups are macro nodes):"
    )
    for line in explained(bundle, user):
        show(line)
    show(
        f"\nreport {run / 'report.html'}\n"
        f"bundle {run / 'bundle'}\n"
        "next   mgoe init YOUR_LOG --out mine.yaml\n"
        f"or     mgoe serve {run / 'bundle'}    (after: {install('serve')})"
    )


def explained(bundle: "Bundle", user: int) -> Iterator[str]:
    """Yield the best new items of a user, two lines each: the probabilities, and what ties both."""
    for _, _, item, _, *chances in bundle.recommend(user, SHOWN, exclude_known=True).itertuples(index=False):
        tasks = zip(bundle.tasks, chances, strict=True)
        known = bundle.explain(user, item)
        of_user = _share(known["user_edges"], known["item_macro"])
        of_item = _share(known["item_edges"], known["user_macro"])
        yield f"item {item}: " + ", ".join(f"{task} {100 * chance:.2g} %" for task, chance in tasks)
        yield (
            f"  {100 * of_user:.0f} % of the user's ties go to its group, "
            f"{100 * of_item:.0f} % of its ties to the user's group"
        )


def _share(edges: Sequence[dict[str, Any]], node: int) -> float:
    """Return the share of one macro node in the scores of macro edges."""
    scores = {edge["node"]: edge["score"] for edge in edges}
    return scores.get(node, 0.0) / (sum(scores.values()) or 1.0)


def _check_folder(out: Path, own: Sequence[Path]) -> None:
    """Refuse a folder that holds anything but a demo."""
    if out.exists() and not out.is_dir():
        raise OutputError(out, "must be a folder, found a file; choose another --out")
    visible = [] if not out.exists() else [path for path in out.iterdir() if path.name[0] != "."]
    if other := sorted(set(visible) - set(own)):
        raise OutputError(
            out, f"must be empty or hold an earlier demo, found {other[0].name}; choose another --out"
        )


def _prepare(log: Path, config: Path, overwrite: bool) -> None:
    """Draw the log and write the configuration, if they are missing."""
    from mgoe._util.files import write_text
    from mgoe.data import guess
    from mgoe.simulation import WorldSettings, simulate

    if overwrite or not log.exists():
        with ProgressBar("exposures") as bar:
            summary = simulate(
                WorldSettings(), log, form="events", overwrite=overwrite, on_progress=bar.update
            )
        logger.info(
            f"simulated {summary.events:,} events of {summary.users:,} users in {summary.seconds:.1f} s"
        )
    if overwrite or not config.exists():
        write_text(config, guess(log / "events"))


def _busiest_user(log: Path) -> int:
    """Return the user with the most events."""
    import pyarrow.parquet as pq

    users = pq.read_table(log / "events", columns=["user_id"])["user_id"]
    return int(users.to_pandas().mode()[0])
