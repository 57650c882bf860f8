from pathlib import Path

import pytest

from mgoe.datasets import PreparedLog, find, prepare
from tests.datasets.layouts import LAYOUTS


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of small files in each published layout. Read them only."""
    folders = {name: tmp_path_factory.mktemp("published") / name for name in LAYOUTS}
    for name, folder in folders.items():
        folder.mkdir()
        LAYOUTS[name](folder)
    return folders


@pytest.fixture(scope="session")
def prepared(published: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreparedLog]:
    """What `prepare` made of them."""
    out = tmp_path_factory.mktemp("prepared")
    return {name: prepare(find(name), folder, out / name) for name, folder in published.items()}
