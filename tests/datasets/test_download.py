"""Downloads from a local server: whole, or not at all and refused in one sentence."""

import hashlib
import resource
import shutil
import signal
import socket
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe._util.files import require_space
from mgoe.datasets.dataset import Download
from mgoe.datasets.download import download
from mgoe.errors import DataError, OutputError
from tests.datasets.server import Served, serve
from tests.effort import up_to

BODY = np.random.default_rng(0).bytes(200_000)
OTHER = np.random.default_rng(1).bytes(150_000)
HOME = "https://example.org/data"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def served() -> Iterator[Served]:
    with serve() as file:
        file.body = BODY
        yield file


def get(
    served: Served, folder: Path, md5: str | None = None, size: int | None = None, **more: object
) -> Path:
    return download(Download(served.address, size, md5), folder, home=HOME, wait=0, **more)  # type: ignore[arg-type]


def md5_of(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()


def test_a_file_comes_whole(served: Served, tmp_path: Path):
    told: list[tuple[str, int, int | None]] = []
    path = get(served, tmp_path, md5_of(BODY), on_progress=lambda *now: told.append(now))
    assert path.read_bytes() == BODY
    assert [entry.name for entry in tmp_path.iterdir()] == ["data.bin"]
    assert told[-1] == ("data.bin", len(BODY), len(BODY))
    get(served, tmp_path, md5_of(BODY))
    assert len(served.requests) == 1


@up_to(15)
@given(cuts=st.lists(st.integers(0, len(BODY) - 1), max_size=4))
def test_wherever_it_is_cut_the_file_comes_whole_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
):
    folder = tmp_path_factory.mktemp("cut")
    with serve() as served:
        served.body, served.cuts = BODY, list(cuts)
        if len(cuts) > 2:
            with pytest.raises(
                DataError, match=r"interrupted \([\d,]+ of 200,000 bytes arrived\); run the same"
            ):
                get(served, folder)
            assert not list(folder.iterdir())
        assert get(served, folder, md5_of(BODY)).read_bytes() == BODY
    assert [path.name for path in folder.iterdir()] == ["data.bin"]


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (401, "needs an account"),
        (403, "refuses access"),
        (404, "no longer has the file"),
        (418, "does not give the file"),
    ],
)
def test_a_refusal_says_what_to_do(served: Served, tmp_path: Path, status: int, why: str):
    served.status = [status]
    with pytest.raises(
        DataError, match=rf"{why} \({status} .*get it from {HOME} yourself,? and give its folder"
    ):
        get(served, tmp_path)
    assert not list(tmp_path.iterdir())
    assert len(served.requests) == 1


def test_a_server_in_trouble_is_asked_again(served: Served, tmp_path: Path):
    served.status = [503, 500]
    assert get(served, tmp_path).read_bytes() == BODY
    served.status = [503] * 3
    (tmp_path / "data.bin").unlink()
    with pytest.raises(DataError, match=r"interrupted \(the server answers 503"):
        get(served, tmp_path)


def test_a_server_that_is_not_there(tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/data.bin"
    with pytest.raises(DataError, match=r"interrupted \(the server cannot be reached"):
        download(Download(address), tmp_path, home=HOME, wait=0)


def test_another_checksum(served: Served, tmp_path: Path):
    with pytest.raises(DataError, match=f"its MD5 must be {md5_of(OTHER)}, found {md5_of(BODY)}") as error:
        get(served, tmp_path, md5_of(OTHER))
    assert error.value.place == str(tmp_path / "data.bin")
    assert not list(tmp_path.iterdir())
    (tmp_path / "data.bin").write_bytes(OTHER)
    with pytest.raises(DataError, match=f"found {md5_of(OTHER)}"):
        get(served, tmp_path, md5_of(BODY))
    assert (tmp_path / "data.bin").read_bytes() == OTHER


def test_a_file_of_unknown_length(served: Served, tmp_path: Path):
    served.sized = False
    assert get(served, tmp_path, md5_of(BODY)).read_bytes() == BODY


def test_a_disk_too_small(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(300_000, 150_000, 150_000))
    with pytest.raises(
        OutputError, match=r"the disk is too small: data\.bin needs 200,000 bytes, free are 150,000"
    ):
        get(served, tmp_path)
    with pytest.raises(OutputError, match="what needs 150,001 bytes, free are 150,000"):
        require_space(tmp_path, 150_001, "what")


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file grows beyond a size, as on a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("room", [1000, 150_000, len(BODY) - 1])
def test_wherever_the_disk_is_full_nothing_stays(served: Served, tmp_path: Path, room: int):
    with (
        room_for(room),
        pytest.raises(OutputError, match=r"cannot be written: .* free space"),
    ):
        get(served, tmp_path)
    assert not list(tmp_path.iterdir())
    assert get(served, tmp_path, md5_of(BODY)).read_bytes() == BODY
