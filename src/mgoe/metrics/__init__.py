"""Metrics of predictions: arrays in, numbers out, without any other part of the library.

A missing label (NaN) drops its row. Where a measure does not exist (one class, no rows) it is NaN, without a
warning; so it is where a prediction is NaN, since a model that predicts NaN must not look measured.

Axes: `N` examples, `G` groups (users), `Q` queries of a ranking.
"""

from mgoe.metrics.labels import Task, mean_defined
from mgoe.metrics.pointwise import (
    Calibration,
    calibration,
    log_loss,
    log_losses,
    mae,
    rmse,
    spearman,
)
from mgoe.metrics.ranking import Gauc, auc, gauc, group_auc, hit_rate_at, ndcg_at, placements, spearman_within
from mgoe.metrics.stability import stability_index

__all__ = [
    "Calibration",
    "Gauc",
    "Task",
    "auc",
    "calibration",
    "gauc",
    "group_auc",
    "hit_rate_at",
    "log_loss",
    "log_losses",
    "mae",
    "mean_defined",
    "ndcg_at",
    "placements",
    "rmse",
    "spearman",
    "spearman_within",
    "stability_index",
]
