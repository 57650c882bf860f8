"""Compile the dense part of a model: element-wise work between matrix products becomes one pass over
memory."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import torch
from torch import nn

from mgoe.errors import TrainingError

if TYPE_CHECKING:
    from mgoe.models import RankingModel


def compile_dense(model: RankingModel, device: torch.device) -> None:
    """Compile the largest submodules without an embedding table. Parameters keep their names.

    Tables have sparse gradients, which cannot be compiled. Layers that a model calls by a method, such as the
    experts of MGOE, MMoE and Shared-Bottom, are not compiled; they would gain nothing on a CPU.

    Args:
        model: The model, on its device.
        device: Its device; a CPU needs a C++ compiler.

    Raises:
        TrainingError: There is no compiler.
    """
    require_compiler(device)
    tables = {id(table) for table in model.tables()}
    for part in model.children():
        _compile(part, tables)


def require_compiler(device: torch.device) -> None:
    """Check that there is a C++ compiler if the device needs one; see `compile_dense`."""
    compilers = [os.environ.get("CXX", "g++"), "g++", "clang++", "c++"]
    if device.type == "cpu" and not any(shutil.which(compiler) for compiler in compilers):
        raise TrainingError(
            "training.compile",
            "needs a C++ compiler, found none; install g++ or clang++, name it in CXX, or leave it off",
        )


def _compile(module: nn.Module, tables: set[int]) -> None:
    if isinstance(module, nn.ModuleList | nn.ModuleDict) or any(id(p) in tables for p in module.parameters()):
        for part in module.children():
            _compile(part, tables)
    elif any(True for _ in module.parameters()):
        module.compile(dynamic=True)  # the last batch is smaller, and validation's batches are larger
