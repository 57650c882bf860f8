"""Tensors on disk: one safetensors file with a description and a checksum, complete or absent."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mgoe.errors import TrainingError
from mgoe.training.distributed.process_group import ALONE, ProcessGroup
from mgoe.training.distributed.shards import Shard, write_together

UNKNOWN = "?" * 64
"""Placeholder of the checksum until everything is written."""


def save_checkpoint(
    path: Path,
    tensors: Mapping[str, Tensor | Shard],
    meta: Mapping[str, Any],
    processes: ProcessGroup = ALONE,
) -> None:
    """Write tensors and a description; a reader sees the old file or the new one, never a part.

    Args:
        path: The file; its folder exists.
        tensors: Tensors by name.
        meta: Description, as JSON holds it; stored in the file's header.
        processes: The processes that make this call: the first one writes, and each one writes its shards.

    Raises:
        TrainingError: The file cannot be written, such as for lack of space or permissions.
    """
    described = json.dumps(meta, sort_keys=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if any(isinstance(tensor, Shard) for tensor in tensors.values()):
            _save_together(unfinished, tensors, described, processes)
        elif processes.leads:
            on_cpu = {
                name: tensor.detach().cpu().contiguous()
                for name, tensor in tensors.items()
                if isinstance(tensor, Tensor)
            }
            save_file(
                on_cpu, unfinished, metadata={"meta": described, "sha256": _checksum(on_cpu, described)}
            )
        if processes.leads:
            with unfinished.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            path, f"the checkpoint cannot be written: {error}; free space or choose another output folder"
        ) from None
    finally:
        if processes.leads:
            unfinished.unlink(missing_ok=True)


def _save_together(
    unfinished: Path, tensors: Mapping[str, Tensor | Shard], described: str, processes: ProcessGroup
) -> None:
    """Write one file with the rows of every process; the first process adds the checksum at the end."""
    head = write_together(unfinished, tensors, {"meta": described, "sha256": UNKNOWN}, processes)
    if processes.leads:
        with safe_open(unfinished, framework="pt") as file, unfinished.open("rb+") as same:
            written = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            same.seek(head.index(UNKNOWN.encode()))
            same.write(_checksum(written, described).encode())


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the description of a checkpoint.

    Raises:
        TrainingError: The file is missing, truncated, changed, or not a checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        raise TrainingError(path, "no such checkpoint; train the model first") from None
    except (OSError, SafetensorError) as error:
        raise TrainingError(path, f"the checkpoint is damaged ({error}); train the model again") from None
    if header.get("sha256") != _checksum(tensors, header.get("meta", "")):
        raise TrainingError(
            path, "the checkpoint is damaged: its checksum does not match its contents; train the model again"
        )
    return tensors, json.loads(header["meta"])


def read_meta(path: Path) -> dict[str, Any]:
    """Return the description of a checkpoint, without its tensors.

    Raises:
        TrainingError: The file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})["meta"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingError(path, f"the checkpoint is damaged ({error}); train the model again") from None


def load_weights(model: nn.Module, path: Path, mapped: bool = False) -> dict[str, Any]:
    """Load the weights of a checkpoint into a model; return the description.

    Args:
        model: Made with the same settings.
        path: The checkpoint.
        mapped: Whether the weights stay in the file, whose pages all processes share. They cannot be trained
            then.

    Raises:
        TrainingError: As `load_checkpoint`, or the checkpoint is of another model or graph.
    """
    tensors, meta = load_checkpoint(path)
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if own != found:
        name = min(own.items() ^ found.items())[0]
        raise TrainingError(
            path,
            f"holds the weights of another model or graph: {name!r} is {found.get(name, 'missing')} there "
            f"and {own.get(name, 'missing')} here; use the settings it was trained with",
        )
    model.load_state_dict(tensors, assign=mapped)
    return meta


def _checksum(tensors: Mapping[str, Tensor], described: str) -> str:
    digest = hashlib.sha256(described.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
