"""The folder in which a ranker works."""

import shutil
from pathlib import Path
from tempfile import mkdtemp
from weakref import finalize

from mgoe.errors import OutputError
from mgoe.pipeline.folder import STATE, take_folder

FRAMES = "frames"
"""Folder of the frames that were fitted, in the work folder of a ranker, which it marks."""


class Workdir:
    """The work folder of a ranker: a given one, or a private one that is removed with the last reference.

    Args:
        given: The folder.

    Attributes:
        path: The folder.
        frames: Where its frames are stored.
        run: Where its run is stored.
    """

    def __init__(self, given: Path | str | None):
        self.path = Path(mkdtemp(prefix="mgoe-") if given is None else given)
        self.frames = self.path / FRAMES
        self.run = self.path / "run"
        if given is None:
            finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        take_folder(self.path, FRAMES, "ranker")
        self.frames.mkdir(exist_ok=True)

    def run_of(self, bundle: Path) -> Path | None:
        """Return the folder of the run that wrote a bundle; None if the bundle was loaded or updated."""
        return self.run if bundle == (self.run / "bundle").resolve() else None

    def need_run(self, asker: str) -> Path:
        """Return the folder of the run, if there is one.

        Args:
            asker: What needs it.

        Raises:
            OutputError: The ranker was loaded.
        """
        if not (self.run / STATE).exists():
            raise OutputError(
                asker,
                "reads what `fit` wrote beside the bundle, found a ranker that was loaded from a bundle; "
                "call fit, with a workdir if the run shall be kept",
            )
        return self.run
