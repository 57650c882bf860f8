"""What a model reads: a batch of named tensors, as a `FeatureSpec` describes it."""

from torch import Tensor

from mgoe.features import CategoricalSpec, FeatureSpec, TaskSpec, batch_keys

__all__ = ["Batch", "CategoricalSpec", "FeatureSpec", "TaskSpec", "batch_keys"]

Batch = dict[str, Tensor]
"""Tensors by name, of the rows of a batch."""
