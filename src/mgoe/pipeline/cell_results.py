"""What a finished cell leaves: metrics, calibration, influence of users, population; its metrics last."""

import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe._util.files import write_json
from mgoe.bundle.calibration import (
    Calibration,
    Window,
    calibrated_sample,
    carried_over_losses,
    fit_calibration,
)
from mgoe.bundle.population import POPULATION, population_of
from mgoe.bundle.sampling import in_whole_space, shift_of
from mgoe.config import ModelSettings, RunSettings
from mgoe.data import Split
from mgoe.evaluation import (
    ALL,
    Influence,
    Row,
    group_users,
    measure,
    measure_calibrated,
    measure_requests,
    rank_catalog,
    reliability,
    user_influence,
    write_rows,
)
from mgoe.models import RankingModel
from mgoe.pipeline.folder import CALIBRATION, DONE, FIT, INFLUENCE, RELIABILITY, VALID_INFLUENCE
from mgoe.pipeline.inputs import Inputs
from mgoe.pipeline.plan import training_of
from mgoe.training import CHECKPOINTS, Feed, track_result

OF_PROBABILITIES = ("logloss", "calibration_error", "predicted_over_observed")
"""Metrics of probabilities, which other scores do not have."""


def write_cell(
    folder: Path,
    settings: RunSettings,
    inputs: Inputs,
    model: ModelSettings,
    fitted: RankingModel,
    feeds: Mapping[str, Feed],
    scores: Mapping[str, NDArray[np.float32]],
    facts: dict[str, Any],
) -> None:
    """Measure the predictions and write the cell, its metrics last.

    With a refit, those on validation are of the chosen weights, and those on test of the tested ones, which
    `fitted` holds.
    """
    rows: list[Row] = []
    tasks, about = inputs.spec.tasks, {"model": facts["model"], "seed": facts["seed"]}
    for split, predictions in scores.items():
        examples = feeds[split].examples
        slices = inputs.slices if settings.evaluation.slices and split == "test" else None
        rows += measure(predictions, examples.labels, examples.user, tasks, slices, **about, split=split)
    calibrations, calibrated, served, carried = calibrate_cell(scores, settings, inputs)
    test = feeds["test"].examples
    rows += measure_calibrated(calibrated, test.labels, tasks, **about, split="test")
    if settings.data.history == "moment":
        moments = inputs.prepared.streamed("test").column("moment")
        rows += measure_requests(
            scores["test"], test.labels, test.user, moments, tasks, **about, split="test"
        )
    of_test = {**about, "split": "test", "slice": ALL, "metric": "carried_over_loss"}
    rows += [Row(**of_test, task=task, value=value) for task, value in carried.items()]
    write_json(folder / CALIBRATION, {of: one.model_dump(mode="json") for of, one in calibrations.items()})
    write_json(folder / POPULATION, population_of(feeds["test"], served).model_dump(mode="json"))
    for split, file in (("valid", VALID_INFLUENCE), ("test", INFLUENCE)):
        examples = feeds[split].examples
        influence = user_influence(scores[split], examples.labels, examples.user, tasks)
        if not fitted.probabilistic:
            rows = ordered_only(rows, influence)
        (group_users(influence) if split == "valid" else influence).save(folder / file)
    write_json(folder / RELIABILITY, reliability(scores["test"], test.labels, tasks))
    if settings.evaluation.ranking_queries:
        rows += catalog(fitted, settings, inputs, **about)
    write_json(folder / FIT, facts)
    track_result(
        training_of(settings, model).track,
        folder,
        settings.model_dump(mode="json", exclude={"models", "seeds"})
        | {"model": model.model_dump(mode="json"), "seed": facts["seed"]},
        {
            f"test/{row['task']}/{row['metric']}": row["value"]
            for row in rows
            if (row["split"], row["slice"]) == ("test", ALL)
        },
    )
    write_rows(folder / DONE, rows)
    for done in (folder, folder / "tested"):
        shutil.rmtree(done / CHECKPOINTS, ignore_errors=True)


def ordered_only(rows: Iterable[Row], influence: Influence, probabilistic: Collection[str] = ()) -> list[Row]:
    """Leave out what only probabilities have: rows, and the columns of an influence.

    Args:
        rows: Measurements.
        influence: Of the same predictions; changed in place.
        probabilistic: Tasks whose predictions are probabilities.
    """
    unknown = [column == "logloss" and task not in probabilistic for task, column in influence.names]
    influence.values[unknown], influence.parts[:, unknown] = np.nan, np.nan
    return [row for row in rows if row["task"] in probabilistic or row["metric"] not in OF_PROBABILITIES]


def calibrate_cell(
    scores: Mapping[str, NDArray[np.float32]], settings: RunSettings, inputs: Inputs
) -> tuple[dict[Split, Calibration], NDArray[np.float64], NDArray[np.float32], dict[str, float]]:
    """Calibrate on validation and predict test; then calibrate on test, whose labels are the newest.

    Test examples read a snapshot from before the test window, so both calibrations come from predictions that
    did not know their labels. Labels of a day that is another world do not count, unless most of the window
    is such days.

    Returns:
        The calibrations: `valid` is for lists on test, and `test` for a bundle; the calibrated predictions of
        the test examples, fitted on validation; what a service of the bundle would answer for them, shape
        (N, T) each; and what the map of validation costs on test, see `carried_over_losses`.
    """

    def window(split: Split) -> Window:
        examples = inputs.prepared.streamed(split)
        items, snapshots = examples.column("item"), examples.column("snapshot")
        shift = np.empty(len(items), np.float32)
        for number in np.unique(snapshots):
            rows = snapshots == number
            shift[rows] = shift_of(inputs.prior(inputs.graph.snapshots[number]), items[rows])
        odd = np.isin(examples.column("bucket"), inputs.prepared.summary.get("odd_buckets", []))
        # the level of a sale is not that of other days
        labels = np.where(odd[:, None] & (odd.mean() <= 0.5), np.nan, examples.labels)
        return Window.of(scores[split], shift, labels, examples.column("bucket"), settings)

    test = window("test")
    of_valid = fit_calibration(window("valid"), settings.tasks, Calibration())
    of_test = fit_calibration(test, settings.tasks, of_valid)
    predicted = calibrated_sample(test, settings.tasks, of_valid)
    carried = carried_over_losses(test, settings.tasks, of_valid)
    return {"valid": of_valid, "test": of_test}, predicted, test.answered(settings.tasks, of_test), carried


def catalog(
    fitted: RankingModel, settings: RunSettings, inputs: Inputs, *, model: str, seed: int
) -> list[Row]:
    """Return HR@k and NDCG@k on test over the whole catalogue.

    A query is a user in a test window, which reads the snapshot before it. The catalogue is the items that
    all of these snapshots know. They are scored as a bundle scores them: with the sampling of negatives
    undone. A task within a sample space ranks items by the probability that the task is done at all.
    """
    prepared, first = inputs.prepared, inputs.prepared.valid_window + 1
    test, users = prepared.streamed("test"), int(prepared.users_at[-1])
    snapshots = inputs.graph.snapshots[first : len(prepared.cuts)]
    scored = [inputs.scored(fitted, snapshot) for snapshot in snapshots]
    query = test.user + users * (test.column("snapshot").astype(np.int64) - first)

    def score(queries: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        window, user = np.divmod(queries, users)  # windows rise, as queries do
        asked = ((number, window == number) for number in np.unique(window).tolist())
        parts = [scored[number].score_indices(user[of], items[of]) for number, of in asked]
        return in_whole_space(np.concatenate(parts), settings.tasks)

    return rank_catalog(
        score,
        test.labels,
        query,
        test.column("item"),
        fitted.spec.tasks,
        catalog=int(prepared.items_at[first]),
        queries=settings.evaluation.ranking_queries,
        k=settings.evaluation.k,
        model=model,
        seed=seed,
        split="test",
        query_seed=0,
    )
