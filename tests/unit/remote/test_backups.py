"""The old files that deploys keep."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest

from remote import Failure, backups, files, lock
from remote.readings import Entry

NEW = "the state that we write"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of the host, below a folder."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/F").write_bytes(b"old \xff\x00")
    return tmp_path / "etc/F"


ENTRY: Entry = {"deploy": "1", "app": "", "undoes": "", "kept": None, "wrote": None, "undone": False}
FRESH = {"app": "", "undoes": "", "changed": False, "is_back": False, "loses": []}


def test_a_file_comes_back_with_its_bytes(file: Path) -> None:
    kept = backups.keep("1", str(file), NEW)
    assert kept == {**ENTRY, "kept": f"{backups.BACKUPS}/1{file}", "wrote": NEW}
    file.write_bytes(b"new")
    backups.restore(str(file), kept, backups.state(str(file)))
    assert file.read_bytes() == b"old \xff\x00"


def test_a_restored_file_has_the_mode_of_the_one_it_replaces(file: Path) -> None:
    kept = backups.keep("1", str(file), NEW)
    file.chmod(0o640)
    backups.restore(str(file), kept, backups.state(str(file)))
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_a_file_that_is_gone_comes_back_as_it_was(file: Path, mode: int) -> None:
    """A `.env` that somebody removed meanwhile: mode, owner and ACLs are those of its backup."""
    file.chmod(mode)
    os.setxattr(file, "user.acl", b"x")
    kept = backups.keep("1", str(file), NEW)
    file.unlink()
    backups.restore(str(file), kept, backups.state(str(file)))
    assert (stat.S_IMODE(file.stat().st_mode), os.getxattr(file, "user.acl")) == (mode, b"x")


def test_a_file_that_is_gone_comes_back_for_its_owner(file: Path) -> None:
    """The .env of an application that another user than root runs."""
    os.chown(file, 1234, 567)
    kept = backups.keep("1", str(file), NEW)
    file.unlink()
    backups.restore(str(file), kept, backups.state(str(file)))
    assert (file.stat().st_uid, file.stat().st_gid, stat.S_IMODE(file.stat().st_mode)) == (1234, 567, 0o644)


@pytest.mark.parametrize("now", ["a file", "nothing", "another link"])
def test_a_symlink_comes_back(file: Path, now: str) -> None:
    link = file.parent / "L"
    link.symlink_to("F")
    kept = backups.keep("1", str(link), NEW)
    assert kept["kept"] == {"link": "F"}
    link.unlink()
    if now == "a file":
        link.write_bytes(b"new")
    elif now == "another link":
        link.symlink_to("/nowhere")
    backups.restore(str(link), kept, backups.state(str(link)))
    assert str(link.readlink()) == "F"
    assert file.read_bytes() == b"old \xff\x00"


def test_a_file_in_the_place_of_a_link_has_its_own_mode(file: Path) -> None:
    """sites-enabled's copy, which became a link to sites-available: not the mode of where that leads."""
    copy = file.parent / "copy"
    copy.write_bytes(b"a copy")
    copy.chmod(0o600)
    kept = backups.keep("1", str(copy), NEW)
    files.place_symlink(str(copy), str(file))
    backups.restore(str(copy), kept, backups.state(str(copy)))
    assert (copy.is_symlink(), stat.S_IMODE(copy.stat().st_mode), copy.read_bytes()) == (False, 0o600, b"a copy")


def test_nothing_comes_back(file: Path) -> None:
    file.unlink()
    kept = backups.keep("1", str(file), NEW)
    assert kept["kept"] is None
    file.write_bytes(b"new")
    backups.restore(str(file), kept, backups.state(str(file)))
    backups.restore(str(file), kept, backups.state(str(file)))
    assert not file.exists()


def test_a_backup_that_is_gone(file: Path) -> None:
    with pytest.raises(Failure, match=r"/gone is gone, so .*/etc/F cannot be put back"):
        backups.restore(str(file), {**ENTRY, "kept": "/gone"}, "")
    assert file.read_bytes() == b"old \xff\x00"


def test_the_first_state_in_a_deploy_counts(file: Path) -> None:
    first = backups.keep("1", str(file), NEW)
    file.write_bytes(b"between")
    assert backups.keep("1", str(file), NEW) == first
    backups.restore(str(file), first, backups.state(str(file)))
    assert file.read_bytes() == b"old \xff\x00"


def test_manifest(file: Path) -> None:
    other = file.parent / "other"
    kept = backups.keep("1", str(file), NEW)
    backups.keep("1", str(other), NEW)
    assert backups.manifest("1") == {
        str(file): kept,
        str(other): {**ENTRY, "wrote": NEW},
    }
    assert backups.manifest("2") == {}
    assert list(backups.read(keys=[])["1"]) == [str(file), str(other)]


def test_a_manifest_of_the_bundle_before(file: Path) -> None:
    """Its backups are on hosts."""
    kept = backups.keep("1", str(file), NEW)["kept"]
    old = {str(file): kept, "/L": {"link": "F"}, "/N": None}
    Path(f"{backups.BACKUPS}/1/manifest.json").write_text(json.dumps(old))
    assert {name: entry["kept"] for name, entry in backups.manifest("1").items()} == old
    file.write_bytes(b"new")
    assert backups.read(keys=[])["1"][str(file)] == FRESH
    entry = backups.manifest("1")[str(file)]
    assert backups.set_aside(str(file), entry) == ""
    backups.restore(str(file), entry, backups.state(str(file)))
    assert file.read_bytes() == b"old \xff\x00"


def test_what_somebody_else_wrote_is_set_aside(file: Path) -> None:
    entry = backups.keep("1", str(file), files.sha256(b"ours") or "")
    assert backups.set_aside(str(file), entry) == "", "not written yet"
    file.write_bytes(b"ours")
    assert backups.set_aside(str(file), entry) == ""
    assert backups.read(keys=[])["1"][str(file)] == FRESH
    file.write_bytes(b"ours and theirs")
    file.chmod(0o640)
    assert backups.read(keys=[])["1"][str(file)]["changed"]
    found = Path(backups.set_aside(str(file), entry))
    assert (found.read_bytes(), stat.S_IMODE(found.stat().st_mode)) == (b"ours and theirs", 0o640)
    backups.restore(str(file), entry, backups.state(str(file)))
    assert file.read_bytes() == b"old \xff\x00"
    assert backups.read(keys=[])["1"][str(file)] == {**FRESH, "is_back": True}
    file.unlink()
    assert backups.set_aside(str(file), entry) == ""


@pytest.mark.parametrize("what", ["file", "link", "nothing"])
def test_what_is_another_by_now_is_not_restored(file: Path, what: str) -> None:
    if what != "file":
        file.unlink()
    if what == "link":
        file.symlink_to("elsewhere")
    entry = backups.keep("1", str(file), NEW)
    file.unlink(missing_ok=True)
    file.write_bytes(b"ours")
    found = backups.state(str(file))
    file.write_bytes(b"theirs")
    with pytest.raises(Failure, match="F was changed by somebody else just now; run again"):
        backups.restore(str(file), entry, found)
    assert file.read_bytes() == b"theirs"
    assert [each.name for each in file.parent.iterdir()] == ["F"]


def test_what_somebody_writes_while_theirs_is_set_aside(file: Path) -> None:
    """It is set aside once more, in a copy of its own."""
    entry = backups.keep("1", str(file), files.sha256(b"ours") or "")
    file.write_bytes(b"ours and theirs")
    left = [b"ours and theirs, and more"]

    def keep_aside() -> str:
        aside = backups.set_aside(str(file), entry)
        if left:
            file.write_bytes(left.pop())
        return aside

    found = Path(backups.put_back(str(file), entry, keep_aside))
    assert file.read_bytes() == b"old \xff\x00"
    assert found.read_bytes() == b"ours and theirs, and more"
    assert found.with_suffix("").read_bytes() == b"ours and theirs"
    file.write_bytes(b"ours and theirs")
    assert backups.set_aside(str(file), entry) == str(found.with_suffix("")), "nothing is kept twice"
    file.write_bytes(b"another line, and ours")
    assert backups.set_aside(str(file), entry) == str(found.with_suffix(".3"))


def test_what_went_back_at_once_is_no_change_of_that_deploy(file: Path) -> None:
    """Else whoever edits it later makes a failed deploy the last that is in force. What it kept stays."""
    other = file.parent / "G"
    for each in (file, other):
        entry = backups.keep("1", str(each), NEW)
        each.write_bytes(b"new")
    backups.put_back(str(other), entry, str)
    other.write_bytes(b"theirs")
    assert list(backups.read(keys=[])["1"]) == [str(file)]
    assert list(backups.manifest("1")) == [str(file), str(other)]
    backups.mark_undone("2", str(other))
    assert not Path(f"{backups.BACKUPS}/2").exists()


def test_the_keys_that_a_dotenv_loses(file: Path) -> None:
    dotenv = file.parent / ".env"
    dotenv.write_text("A=1\nB=\n")
    backups.keep("1", str(dotenv), NEW)
    dotenv.write_text("A=2\nB=1\nC=1\nD=1\n")
    assert backups.read(keys=["A", "B", "C", "E"])["1"][str(dotenv)]["loses"] == ["B", "C"]


def test_all_is_for_root_alone(file: Path) -> None:
    old = os.umask(0)
    try:
        backups.keep("1", str(file), NEW)
    finally:
        os.umask(old)
    for folder, _, names in os.walk(backups.BACKUPS):
        assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
        assert {stat.S_IMODE(Path(f"{folder}/{name}").stat().st_mode) for name in names} <= {0o600, 0o644}
    assert (Path(f"{backups.BACKUPS}/1{file}")).is_file()


def test_the_newest_deploys_stay(file: Path) -> None:
    for number in range(backups.KEEP + 5):
        backups.keep(f"{number:02}", str(file), NEW)
    assert list(backups.read(keys=[])) == [f"{number:02}" for number in range(5, backups.KEEP + 5)]


def test_the_deploys_of_another_application_stay_too(file: Path) -> None:
    def keep(deploy: str, app: str) -> None:
        Path(lock.FOLDER).mkdir(parents=True, exist_ok=True)
        Path(f"{lock.FOLDER}/{lock.DEPLOY}").write_text(json.dumps({"app": app}))
        backups.keep(deploy, str(file), NEW)

    keep("00", "first")
    for number in range(backups.KEEP + 5):
        keep(f"{number + 10}", "second")
    found = backups.read(keys=[])
    assert [found[deploy][str(file)]["app"] for deploy in found] == ["first", *["second"] * backups.KEEP]


def test_the_deploy_that_is_undone_stays(file: Path) -> None:
    """A rollback of the oldest one keeps files of its own before it reads the old ones."""
    for number in range(10, 10 + backups.KEEP):
        backups.keep(f"{number}", str(file), NEW)
    backups.keep("99", str(file), NEW, undoes="10")
    assert "10" in backups.read(keys=[])


def test_a_deploy_killed_before_it_kept_anything_is_passed_over(file: Path) -> None:
    (Path(backups.BACKUPS) / "20260101T000000Z").mkdir(parents=True)
    backups.keep("10", str(file), NEW)
    assert list(backups.read(keys=[])) == ["10"]


def test_the_deploy_in_hand_stays_though_the_clock_was_set_back(file: Path) -> None:
    for number in range(10, 10 + backups.KEEP):
        backups.keep(f"{number}", str(file), NEW)
    file.write_bytes(b"later")
    kept = backups.keep("00", str(file), NEW)
    backups.keep("00", f"{file}2", NEW)
    assert list(backups.read(keys=[])) == ["00", *(f"{number}" for number in range(11, 10 + backups.KEEP))]
    file.write_bytes(b"new")
    backups.restore(str(file), kept, backups.state(str(file)))
    assert file.read_bytes() == b"later"


def test_a_new_deploy_has_the_last_id(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the same second, and when the clock was set back: rollback takes the last id for the last deploy."""
    found = []
    for now in (1798761599.5, 1798761599.5, 1798757999.5):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        found.append(backups.new_deploy())
        backups.keep(found[-1], str(file), NEW)
    assert found == ["20261231T235959Z", "20270101T000000Z", "20270101T000001Z"]
    assert backups.new_deploy("20270101T000002Z") == "20270101T000003Z", "nor that of one which has kept nothing"
