"""Downloads from a local server: whole, or resumed, or refused in one sentence; never two versions joined."""

import hashlib
import resource
import shutil
import signal
import socket
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe._util.files import require_space
from mgoe.datasets.dataset import Download
from mgoe.datasets.download import download, remaining
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
@given(cuts=st.lists(st.integers(1, 150_000), max_size=4), tagged=st.booleans(), ranges=st.booleans())
def test_wherever_it_is_cut_the_file_comes_whole(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], tagged: bool, ranges: bool
):
    folder = tmp_path_factory.mktemp("cut")
    with serve() as served:
        served.body, served.cuts, served.ranges = BODY, list(cuts), ranges
        served.tag = '"one"' if tagged else None
        for _ in range(len(cuts) + 1):
            with suppress(DataError):
                get(served, folder, md5_of(BODY))
    assert (folder / "data.bin").read_bytes() == BODY


def test_a_cut_is_gone_on_with_from_there(served: Served, tmp_path: Path):
    served.cuts = [60_000, 50_000]
    assert get(served, tmp_path).read_bytes() == BODY
    assert [request.get("Range") for request in served.requests] == [None, "bytes=60000-", "bytes=110000-"]
    assert [request.get("If-Range") for request in served.requests] == [None, '"one"', '"one"']


def test_all_there_but_not_yet_checked(served: Served, tmp_path: Path):
    served.cuts = [60_000, 0, 0]
    with pytest.raises(DataError, match="interrupted"):
        get(served, tmp_path)
    with (tmp_path / "data.bin.part").open("ab") as part:
        part.write(BODY[60_000:])
    asked = len(served.requests)
    assert get(served, tmp_path, md5_of(BODY)).read_bytes() == BODY
    assert len(served.requests) == asked


def test_a_download_that_never_moves_ends_in_a_sentence_and_is_kept(served: Served, tmp_path: Path):
    served.cuts = [60_000, 0, 0]
    with pytest.raises(
        DataError, match=r"interrupted \(60,000 of 200,000 bytes arrived\); run the same command to resume"
    ):
        get(served, tmp_path)
    assert (tmp_path / "data.bin.part").read_bytes() == BODY[:60_000]
    assert not (tmp_path / "data.bin").exists()
    assert get(served, tmp_path).read_bytes() == BODY
    assert served.requests[-1]["Range"] == "bytes=60000-"


@pytest.mark.parametrize("careless", [False, True])
@pytest.mark.parametrize("tag", ['"two"', None])
def test_a_file_that_changed_meanwhile_is_started_again(
    served: Served, tmp_path: Path, careless: bool, tag: str | None, said: pytest.LogCaptureFixture
):
    served.cuts = [60_000, 0, 0]
    with pytest.raises(DataError, match="interrupted"):
        get(served, tmp_path)
    served.body, served.tag, served.date, served.careless = (
        OTHER,
        tag,
        "Sun, 02 Jan 2022 00:00:00 GMT",
        careless,
    )
    said.clear()
    assert get(served, tmp_path).read_bytes() == OTHER
    changed = "data.bin: the file has changed on the server, trying again"
    assert said.messages == ([changed] if careless else [])


def test_a_file_that_is_another_each_time_ends_in_a_sentence(served: Served, tmp_path: Path):
    served.status = [416] * 3
    with pytest.raises(
        DataError, match=rf"interrupted \(the file has changed on the server\).* or get it from {HOME}"
    ):
        get(served, tmp_path)
    assert not list(tmp_path.iterdir())
    assert len(served.requests) == 3


def test_no_part_of_the_former_file_is_taken_for_one_of_the_new(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The new one does not fit on the disk: what is remembered of it must not vouch for bytes of the old."""
    served.cuts = [60_000, 0, 0]
    with pytest.raises(DataError, match="interrupted"):
        get(served, tmp_path)
    served.body, served.tag, served.date = OTHER, '"two"', "Sun, 02 Jan 2022 00:00:00 GMT"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(200_000, 100_000, 100_000))
    with pytest.raises(OutputError, match="too small"):
        get(served, tmp_path)
    monkeypatch.undo()
    assert get(served, tmp_path).read_bytes() == OTHER


def test_a_shorter_file_now_is_started_again(served: Served, tmp_path: Path):
    served.cuts = [60_000, 0, 0]
    with pytest.raises(DataError, match="interrupted"):
        get(served, tmp_path)
    served.body, served.careless = OTHER[:1000], True
    assert get(served, tmp_path).read_bytes() == OTHER[:1000]


def test_a_part_that_nothing_vouches_for_is_started_again(served: Served, tmp_path: Path):
    (tmp_path / "data.bin.part").write_bytes(b"of who knows what")
    assert get(served, tmp_path).read_bytes() == BODY
    assert "Range" not in served.requests[0]
    weak = tmp_path / "weak"
    weak.mkdir()
    served.tag, served.date, served.cuts = 'W/"one"', None, [60_000]
    assert get(served, weak).read_bytes() == BODY
    assert "Range" not in served.requests[-1]


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


def test_another_size_where_no_checksum_is_published(served: Served, tmp_path: Path):
    with pytest.raises(DataError, match="its size must be 200001, found 200000; remove it"):
        get(served, tmp_path, size=len(BODY) + 1)
    assert not list(tmp_path.iterdir())
    assert get(served, tmp_path, size=len(BODY)).read_bytes() == BODY


def test_a_file_of_unknown_length(served: Served, tmp_path: Path):
    served.sized = False
    assert get(served, tmp_path, md5_of(BODY)).read_bytes() == BODY


def test_a_disk_too_small(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(300_000, 150_000, 150_000))
    with pytest.raises(
        OutputError, match=r"the disk is too small: data\.bin needs 200,000 bytes, free are 150,000"
    ):
        get(served, tmp_path)
    monkeypatch.undo()
    served.cuts = [60_000, 0, 0]
    with pytest.raises(DataError, match="interrupted"):
        get(served, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(300_000, 150_000, 150_000))
    assert get(served, tmp_path).read_bytes() == BODY  # 140,000 are still to come
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
def test_wherever_the_disk_is_full_the_download_goes_on_from_there(served: Served, tmp_path: Path, room: int):
    with (
        room_for(room),
        pytest.raises(OutputError, match=r"cannot be written: .* free space"),
    ):
        get(served, tmp_path)
    assert (tmp_path / "data.bin.part").read_bytes() == BODY[:room]
    assert get(served, tmp_path, md5_of(BODY)).read_bytes() == BODY
    assert served.requests[-1]["Range"] == f"bytes={room}-"


def test_what_is_still_to_come(served: Served, tmp_path: Path):
    file = Download(served.address, len(BODY))
    assert remaining(file, tmp_path) == len(BODY)
    assert remaining(Download(served.address), tmp_path) == 0
    (tmp_path / "data.bin.part").write_bytes(BODY[:1000])
    assert remaining(file, tmp_path) == len(BODY) - 1000
    (tmp_path / "data.bin").write_bytes(BODY)
    assert remaining(file, tmp_path) == 0
