"""The old files that deploys keep."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from remote import Failure, backups


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of the host, below a folder."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/F").write_bytes(b"old \xff\x00")
    return tmp_path / "etc/F"


def test_a_file_comes_back_with_its_bytes(file: Path) -> None:
    kept = backups.keep("1", str(file))
    assert kept == f"{backups.BACKUPS}/1{file}"
    file.write_bytes(b"new")
    backups.restore(str(file), kept)
    assert file.read_bytes() == b"old \xff\x00"


def test_a_restored_file_has_the_mode_of_the_one_it_replaces(file: Path) -> None:
    kept = backups.keep("1", str(file))
    file.chmod(0o640)
    backups.restore(str(file), kept)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_file_that_is_gone_comes_back_for_root_alone(file: Path) -> None:
    """A `.env` that somebody removed meanwhile: its mode is in no record, and its secrets are for nobody else."""
    file.chmod(0o600)
    kept = backups.keep("1", str(file))
    file.unlink()
    backups.restore(str(file), kept)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_that_is_gone_comes_back_for_its_owner(file: Path) -> None:
    """The .env of an application that another user than root runs."""
    os.chown(file, 1234, 567)
    kept = backups.keep("1", str(file))
    file.unlink()
    backups.restore(str(file), kept)
    assert (file.stat().st_uid, file.stat().st_gid, stat.S_IMODE(file.stat().st_mode)) == (1234, 567, 0o600)


@pytest.mark.parametrize("now", ["a file", "nothing", "another link"])
def test_a_symlink_comes_back(file: Path, now: str) -> None:
    link = file.parent / "L"
    link.symlink_to("F")
    kept = backups.keep("1", str(link))
    assert kept == {"link": "F"}
    link.unlink()
    if now == "a file":
        link.write_bytes(b"new")
    elif now == "another link":
        link.symlink_to("/nowhere")
    backups.restore(str(link), kept)
    assert str(link.readlink()) == "F"
    assert file.read_bytes() == b"old \xff\x00"


def test_nothing_comes_back(file: Path) -> None:
    file.unlink()
    kept = backups.keep("1", str(file))
    assert kept is None
    file.write_bytes(b"new")
    backups.restore(str(file), kept)
    backups.restore(str(file), kept)
    assert not file.exists()


def test_a_backup_that_is_gone(file: Path) -> None:
    with pytest.raises(Failure, match=r"/gone is gone, so .*/etc/F cannot be put back"):
        backups.restore(str(file), "/gone")
    assert file.read_bytes() == b"old \xff\x00"


def test_the_first_state_in_a_deploy_counts(file: Path) -> None:
    first = backups.keep("1", str(file))
    file.write_bytes(b"between")
    assert backups.keep("1", str(file)) == first
    backups.restore(str(file), first)
    assert file.read_bytes() == b"old \xff\x00"


def test_manifest(file: Path) -> None:
    other = file.parent / "other"
    kept = backups.keep("1", str(file))
    backups.keep("1", str(other))
    assert backups.manifest("1") == {str(file): kept, str(other): None}
    assert backups.manifest("2") == {}
    assert backups.read() == {"1": [str(file), str(other)]}


def test_all_is_for_root_alone(file: Path) -> None:
    old = os.umask(0)
    try:
        backups.keep("1", str(file))
    finally:
        os.umask(old)
    for folder, _, names in os.walk(backups.BACKUPS):
        assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
        assert {stat.S_IMODE(Path(f"{folder}/{name}").stat().st_mode) for name in names} <= {0o600}
    assert (Path(f"{backups.BACKUPS}/1{file}")).is_file()


def test_the_newest_deploys_stay(file: Path) -> None:
    for number in range(backups.KEEP + 5):
        backups.keep(f"{number:02}", str(file))
    assert list(backups.read()) == [f"{number:02}" for number in range(5, backups.KEEP + 5)]


def test_the_deploy_that_is_undone_stays(file: Path) -> None:
    """A rollback of the oldest one keeps files of its own before it reads the old ones."""
    for number in range(10, 10 + backups.KEEP):
        backups.keep(f"{number}", str(file))
    backups.keep("99", str(file), spare="10")
    assert "10" in backups.read()


def test_a_deploy_killed_before_it_kept_anything_is_passed_over(file: Path) -> None:
    (Path(backups.BACKUPS) / "20260101T000000Z").mkdir(parents=True)
    backups.keep("10", str(file))
    assert list(backups.read()) == ["10"]


def test_the_deploy_in_hand_stays_though_the_clock_was_set_back(file: Path) -> None:
    for number in range(10, 10 + backups.KEEP):
        backups.keep(f"{number}", str(file))
    file.write_bytes(b"later")
    kept = backups.keep("00", str(file))
    backups.keep("00", f"{file}2")
    assert list(backups.read()) == ["00", *(f"{number}" for number in range(11, 10 + backups.KEEP))]
    file.write_bytes(b"new")
    backups.restore(str(file), kept)
    assert file.read_bytes() == b"later"


def test_a_new_deploy_never_has_the_id_of_an_old_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1798761599.5)
    found = []
    for _ in range(3):
        found.append(backups.new_deploy())
        backups.keep(found[-1], str(file))
    assert found == ["20261231T235959Z", "20270101T000000Z", "20270101T000001Z"]
