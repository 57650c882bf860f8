"""What a retraining needs besides a bundle, in the folder `BUNDLE.training` beside it, which is never served.

optimizer.safetensors  state of the optimisers at the weights of the bundle
replay.safetensors     a sample of the rows that it has learned from
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from mgoe._util.files import atomic_folder
from mgoe.bundle.bundle import Bundle
from mgoe.training import OPTIMIZER, WEIGHTS, Feed, Replay, load_checkpoint

REPLAY = "replay.safetensors"


def state_folder(bundle: Path) -> Path:
    """Return the folder of the training state of a bundle."""
    place = Path(os.path.realpath(bundle))
    return place.with_name(f"{place.name}.training")


def keep_of_cell(cell: Path, feed: Feed, rows: int, bundle: Path) -> None:
    """Keep the training state of a bundle that was written from a cell.

    Args:
        cell: Folder of the cell.
        feed: What it was trained on.
        rows: How many rows to replay at most.
        bundle: Folder of the bundle.
    """
    memory = Replay.of(feed, rows)
    with atomic_folder(state_folder(bundle)) as folder:
        memory.save(folder / REPLAY)
        if (cell / OPTIMIZER).exists():
            shutil.copyfile(cell / OPTIMIZER, folder / OPTIMIZER)


def start_of(bundle: Bundle) -> dict[str, Tensor]:
    """Return the weights of a bundle and, where it is kept, the state of the optimisers, as `fit` takes them.

    Raises:
        TrainingError: A file is damaged.
    """
    return start_from(bundle.path / WEIGHTS, state_folder(bundle.path) / OPTIMIZER)


def start_from(weights: Path, optimizers: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of weights and, if it exists, of one of optimisers, as `fit` takes them.

    Raises:
        TrainingError: A file is missing or damaged.
    """
    tensors = {f"model.{name}": tensor for name, tensor in load_checkpoint(weights)[0].items()}
    return tensors | (load_checkpoint(optimizers)[0] if optimizers.exists() else {})


def replay_of(bundle: Bundle) -> Replay | None:
    """Return the rows that can be replayed; None where none were kept.

    Raises:
        TrainingError: The file is damaged.
    """
    file = state_folder(bundle.path) / REPLAY
    return Replay.load(file) if file.exists() else None


def keep_state(bundle: Path, files: Iterable[Path]) -> None:
    """Keep files for the next retraining of a bundle, in place of those of a former one."""
    with atomic_folder(state_folder(bundle)) as folder:
        for file in files:
            shutil.copyfile(file, folder / file.name)


def copy_bundle(bundle: Path, to: Path) -> None:
    """Copy a bundle, and what is beside it."""
    with atomic_folder(to) as folder:
        shutil.copytree(bundle, folder, dirs_exist_ok=True)
        copy_state(bundle, to)


def copy_state(bundle: Path, to: Path) -> None:
    """Keep what is beside a bundle for another bundle with the same weights too."""
    if (state := state_folder(bundle)).is_dir():
        keep_state(to, state.iterdir())
