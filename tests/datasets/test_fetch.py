"""Fetching: addresses, archives of one's own, and what comes out of them."""

import hashlib
import io
import shutil
import tarfile
import zipfile
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from mgoe.datasets import DATA_SETS, DataSet, Download, fetch, find, prepare
from mgoe.datasets.fetch import unpack
from mgoe.errors import DataError, OutputError
from tests.datasets.server import serve

Usage = namedtuple("Usage", "total used free")


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return path


def tarred(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
        link = tarfile.TarInfo("wanted-link.csv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("name", ["../../evil.csv", "/evil.csv", "..\\..\\evil.csv", "a/b/evil.csv"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, pack, name: str):
    into = tmp_path / "deep" / "into"
    into.mkdir(parents=True)
    ending = "zip" if pack is zipped else "tar.gz"
    archive = pack(tmp_path / f"a.{ending}", {name: b"1", "other.csv": b"2"})
    unpack(archive, {"evil.csv", "wanted-link.csv"}, into, {})
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == {
        f"a.{ending}",
        "deep/into/evil.csv",
    }


def test_archives_in_archives(tmp_path: Path):
    inner = zipped(tmp_path / "nl_user_train.zip", {"nl_user_train.csv": b"1,2\n"}).read_bytes()
    outer = zipped(
        tmp_path / "all.zip", {"aliexpress_NL_datasets/nl_user_train.zip": inner, "readme.txt": b""}
    )
    into = tmp_path / "into"
    into.mkdir()
    held: dict[str, Path] = {}
    unpack(outer, {"nl_user_train.csv"}, into, held)
    assert held == {"nl_user_train.csv": outer}
    assert [path.name for path in into.iterdir()] == ["nl_user_train.csv"]


def test_damaged_archives(tmp_path: Path):
    whole = zipped(tmp_path / "a.zip", {"wanted.csv": b"0123456789" * 1000}).read_bytes()
    packed = tarred(tmp_path / "a.tar.gz", {"wanted.csv": bytes(range(256)) * 1000}).read_bytes()
    flipped = bytearray(whole)
    flipped[60] ^= 255
    broken = {
        "b.zip": whole[: len(whole) // 2],
        "c.zip": bytes(flipped),
        "d.tar.gz": packed[: len(packed) // 2],
        "e.tar.gz": b"no archive",
    }
    for name, body in broken.items():
        (tmp_path / name).write_bytes(body)
        into = tmp_path / f"into-{name}"
        into.mkdir()
        with pytest.raises(DataError, match=r"the archive is damaged: .*; fetch it again"):
            unpack(tmp_path / name, {"wanted.csv"}, into, {})


def test_a_damaged_archive_inside_another_is_told_by_the_outer_one(tmp_path: Path):
    into = tmp_path / "into"
    into.mkdir()
    outer = zipped(tmp_path / "all.zip", {"inner.zip": b"PK and no more"})
    with pytest.raises(DataError, match="the archive is damaged") as error:
        unpack(outer, {"wanted.csv"}, into, {})
    assert error.value.place == str(outer)


def test_a_file_that_is_there_twice(tmp_path: Path):
    into = tmp_path / "into"
    into.mkdir()
    archive = zipped(tmp_path / "a.zip", {"a/wanted.csv": b"1", "b/wanted.csv": b"2"})
    with pytest.raises(
        DataError, match=r"wanted\.csv must be in the archives once, found it in .*a\.zip too"
    ):
        unpack(archive, {"wanted.csv"}, into, {})


def test_too_small_a_disk_for_what_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    archive = zipped(tmp_path / "a.zip", {"wanted.csv": b"0" * 5000, "other.csv": b"0" * 9000})
    into = tmp_path / "into"
    into.mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10_000, 5001, 4999))
    with pytest.raises(OutputError, match=r"unpacking a\.zip needs 5,000 bytes, free are 4,999"):
        unpack(archive, {"wanted.csv"}, into, {})


def test_fetched_then_prepared(published: dict[str, Path], tmp_path: Path, said: pytest.LogCaptureFixture):
    """All of it from a server: download, unpack, parse; a second call has nothing to do."""
    folder = published["movielens-1m"] / "ml"
    archive = zipped(
        tmp_path / "ml.zip",
        {f"ml-1m/{path.name}": path.read_bytes() for path in folder.iterdir()} | {"ml-1m/README": b""},
    )
    with serve() as served:
        served.body, served.cuts = archive.read_bytes(), [1000]
        address = served.address.replace("data.bin", "ml.zip")
        md5 = hashlib.md5(served.body).hexdigest()
        data = replace(find("movielens-1m"), downloads=(Download(address, len(served.body), md5),))
        found = fetch(data, tmp_path / "raw")
        arrived = f"ml.zip: 1,000 of {len(served.body):,} bytes arrived, trying again"
        assert said.messages == [f"fetching {address}", arrived, "unpacking ml.zip"]
        assert fetch(data, tmp_path / "raw") == found
        assert len(served.requests) == 2
    assert found.files == ["movies.dat", "ratings.dat", "users.dat"]
    assert {path.name for path in (tmp_path / "raw").iterdir()} == {"downloads", "files"}
    assert prepare(data, found.path, tmp_path / "log").rows["users.parquet"] > 0


def test_a_page_in_place_of_a_file_is_not_kept(tmp_path: Path):
    with serve() as served:
        address, taobao = served.address.rpartition("/")[0], find("taobao")
        data = replace(taobao, downloads=tuple(Download(f"{address}/{one.name}") for one in taobao.downloads))
        served.body = b"<html>sign in</html>"
        for asked in (1, 2):
            with pytest.raises(
                DataError,
                match=rf"it must be .*, found .* begins with b'<html>sign in.*get it from {data.home}",
            ):
                fetch(data, tmp_path / "raw")
            assert len(served.requests) == asked
        assert not list((tmp_path / "raw" / "downloads").iterdir())


def test_a_damaged_download_that_no_checksum_vouches_for_is_downloaded_again(tmp_path: Path):
    whole = zipped(tmp_path / "whole.zip", {"UserBehavior.csv": b"1,2,3,pv,1511544070\n" * 100}).read_bytes()
    with serve() as served:
        address = served.address.replace("data.bin", "UserBehavior.csv.zip")
        data = replace(find("taobao"), downloads=(Download(address),))
        served.body = whole[: len(whole) // 2]
        with pytest.raises(
            DataError,
            match=r"the archive is damaged: .*; fetch it again",
        ) as error:
            fetch(data, tmp_path / "raw")
        assert error.value.place == str(tmp_path / "raw" / "downloads" / "UserBehavior.csv.zip")
        served.body = whole
        assert fetch(data, tmp_path / "raw").files == ["UserBehavior.csv"]
        assert len(served.requests) == 2


def test_a_damaged_archive_of_one_s_own_stays(tmp_path: Path):
    own = tmp_path / "UserBehavior.csv.zip"
    own.write_bytes(b"PK and no more")
    for _ in range(2):
        with pytest.raises(DataError, match=r"the archive is damaged: .*; fetch it again"):
            fetch(find("taobao"), tmp_path / "raw", tmp_path)
    assert own.exists()


def test_too_small_a_disk_is_seen_before_a_byte_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10_000_000, 0, 10_000_000))
    with pytest.raises(
        OutputError, match=r"the disk is too small: KuaiRec 2\.0 needs 431,964,858 bytes, free are 10,000,000"
    ):
        fetch(find("kuairec"), tmp_path / "raw")


@pytest.mark.parametrize(
    "data", [data for data in DATA_SETS.values() if not data.downloads], ids=lambda data: data.name
)
def test_sets_without_an_address_say_how_to_come_by_them(tmp_path: Path, data: DataSet):
    with pytest.raises(DataError, match="cannot be downloaded by a command") as error:
        fetch(data, tmp_path / "raw")
    assert data.home in error.value.message
    assert all(name in error.value.message for name in data.files)
    assert f"mgoe data prepare {data.name} --from FOLDER" in error.value.message
    assert not (tmp_path / "raw").exists()


def test_archives_of_one_s_own(published: dict[str, Path], tmp_path: Path):
    own, taobao = tmp_path / "own", find("taobao")
    own.mkdir()
    with pytest.raises(DataError, match=r"must be an archive .* or a folder with archives, found none"):
        fetch(taobao, tmp_path / "raw", own)
    zipped(own / "mine.zip", {"readme.csv": b""})
    with pytest.raises(DataError, match=r"UserBehavior\.csv is required and in none of the archives"):
        fetch(taobao, tmp_path / "other", own)
    assert (tmp_path / "other" / "files").is_dir()
    zipped(own / "mine.zip", {"UserBehavior.csv": (published["taobao"] / "UserBehavior.csv").read_bytes()})
    assert fetch(taobao, tmp_path / "raw", own).files == ["UserBehavior.csv"]
    assert fetch(taobao, tmp_path / "other", own).files == ["UserBehavior.csv"]
    assert prepare(taobao, tmp_path / "raw", tmp_path / "log").rows


def test_files_of_older_archives_are_replaced_and_those_of_another_set_refused(tmp_path: Path):
    own, out = tmp_path / "own", tmp_path / "raw"
    own.mkdir()
    names = {name: f"ml-1m/{name}" for name in find("movielens-1m").files}
    for text in (b"old", b"new"):
        zipped(own / "ml.zip", dict.fromkeys(names.values(), text))
        fetch(find("movielens-1m"), out, own)
        assert (out / "files" / "ratings.dat").read_bytes() == text
    shutil.rmtree(own)
    own.mkdir()
    zipped(own / "ml.zip", {f"ml-10M100K/{name}": b"ten" for name in find("movielens-10m").files})
    with pytest.raises(
        OutputError,
        match=r"must hold files of movielens-10m, found those of movielens-1m; choose another folder",
    ):
        fetch(find("movielens-10m"), out, own)
    assert (out / "files" / "ratings.dat").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("before", "name"), [(False, "thesis.tex"), (False, "ratings.dat"), (True, "thesis.tex")]
)
def test_a_user_s_own_files_stay(tmp_path: Path, before: bool, name: str):
    own, theirs, data = tmp_path / "own", tmp_path / "raw" / "files" / name, find("movielens-1m")
    own.mkdir()
    zipped(own / "mine.zip", dict.fromkeys(data.files, b"old"))
    if before:
        fetch(data, tmp_path / "raw", own)
        zipped(own / "mine.zip", dict.fromkeys(data.files, b"new"))
    theirs.parent.mkdir(parents=True, exist_ok=True)
    theirs.write_text("precious")
    with pytest.raises(
        OutputError,
        match=r"must hold only files that `mgoe data fetch` unpacked, found .*; .* choose another folder",
    ):
        fetch(data, tmp_path / "raw", own)
    assert theirs.read_text() == "precious"


def test_archives_of_a_published_name_come_first(tmp_path: Path):
    data = find("movielens-1m")
    right = zipped(tmp_path / "ml-1m.zip", dict.fromkeys(data.files, b"right")).read_bytes()
    zipped(tmp_path / "a-copy.zip", dict.fromkeys(data.files, b"wrong"))
    zipped(tmp_path / "ml-10m.zip", dict.fromkeys(data.files, b"wrong"))
    data = replace(
        data, downloads=(Download("https://example.org/ml-1m.zip", md5=hashlib.md5(right).hexdigest()),)
    )
    fetch(data, tmp_path / "raw", tmp_path)
    assert (tmp_path / "raw" / "files" / "ratings.dat").read_bytes() == b"right"


def test_a_file_in_two_archives_names_both_and_one_of_them_can_be_named(tmp_path: Path):
    own, data = tmp_path / "own", find("movielens-1m")
    for name in ("a", "b"):
        (own / name).mkdir(parents=True)
        zipped(own / name / "ml.zip", dict.fromkeys(data.files, name.encode()))
    with pytest.raises(
        DataError, match=r"must be in the archives once, found it in .*/a/ml\.zip too; name the right archive"
    ) as error:
        fetch(data, tmp_path / "raw", own)
    assert error.value.place == str(own / "b" / "ml.zip")
    fetch(data, tmp_path / "raw", own / "b" / "ml.zip")
    assert (tmp_path / "raw" / "files" / "ratings.dat").read_bytes() == b"b"
    with pytest.raises(DataError, match="must be an archive"):
        fetch(data, tmp_path / "raw", tmp_path / "raw" / "files" / "ratings.dat")


def test_either_choice_of_files_is_enough(tmp_path: Path):
    own = tmp_path / "own"
    own.mkdir()
    zipped(own / "AliExpress_NL.zip", {"AliExpress_NL/train.csv": b"1", "AliExpress_NL/test.csv": b"2"})
    assert fetch(find("aliexpress-nl"), tmp_path / "raw", own).files == ["test.csv", "train.csv"]


def test_an_archive_of_one_s_own_with_another_checksum(tmp_path: Path):
    own = tmp_path / "own"
    own.mkdir()
    zipped(own / "KuaiRec.zip", {"big_matrix.csv": b""})
    with pytest.raises(DataError, match="its MD5 must be 261550d472c48eff4990fb13c0e5bcf7"):
        fetch(find("kuairec"), tmp_path / "raw", own)
