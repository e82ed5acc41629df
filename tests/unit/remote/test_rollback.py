"""All the files of a deploy go back, or none; and what somebody else writes meanwhile stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote import Failure, backups, files, nginx, pm2, restart, services
from remote.readings import Entry
from tests.unit.remote.conftest import roll_back


@pytest.fixture(autouse=True)
def changed(etc: Path) -> None:
    """Files of nginx that deploy 1 changed from "old" to "new"."""
    for name in "ABC":
        (etc / name).write_text("old")
        backups.keep("1", str(etc / name), files.sha256(b"new") or "")
        (etc / name).write_text("new")


def texts(folder: Path) -> list[str]:
    return [file.read_text() for file in sorted(folder.iterdir())]


def test_all_go_back(etc: Path) -> None:
    roll_back()
    assert texts(etc) == ["old", "old", "old"]


def test_what_somebody_writes_meanwhile_stays_and_nothing_goes_back(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their line came when ours was kept, and was in neither the file nor a backup."""
    real = backups.restore

    def restore(file: str, entry: Entry, found: str) -> None:
        if file.endswith("B") and entry["deploy"] == "1":
            (etc / "B").write_text("new, and theirs")
        real(file, entry, found)

    monkeypatch.setattr(backups, "restore", restore)
    with pytest.raises(Failure, match="B was changed by somebody else just now; run again"):
        roll_back()
    assert texts(etc) == ["new", "new, and theirs", "new"]
    assert services.load_note("nginx") == {"processes": [], "files": {}}


def test_what_fails_after_its_rename_goes_back_too(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder cannot be brought onto the disk: the file is there, and all the others are not."""
    real, failing = files.sync, [str(etc)]

    def sync(folder: str) -> None:
        if folder in failing and (etc / "B").read_text() == "old":
            failing.clear()
            raise OSError(5, "Input/output error")
        real(folder)

    monkeypatch.setattr(files, "sync", sync)
    with pytest.raises(Failure, match="Input/output error"):
        roll_back()
    assert texts(etc) == ["new", "new", "new"]


def test_what_somebody_writes_while_the_api_starts_is_told(
    tmp_path: Path, etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails, and has put its files back; a line that came since stays there, and one before is in a copy."""
    env = tmp_path / ".env"
    env.write_text("old")
    backups.keep("1", str(env), files.sha256(b"new") or "")
    env.write_text("new")

    def restart_fails(**_: object) -> None:
        env.write_text("old, and a first line")
        services.undo(services.of("api"))
        env.write_text("new, and a second line")
        (etc / "A").write_text("old, and a third line")
        raise Failure("it does not stay up")

    monkeypatch.setattr(pm2, "read", lambda **_: None)
    monkeypatch.setattr(pm2, "processes", lambda _: [])
    monkeypatch.setattr(restart, "run_what_is_on_disk", restart_fails)
    with pytest.raises(Failure) as told:
        roll_back()
    aside = f"{backups.BACKUPS}/2{etc}/A.found"
    assert str(told.value) == f"it does not stay up; somebody else's version of {etc}/A is now in {aside}"
    assert env.read_text() == "new, and a second line"
    assert Path(f"{backups.BACKUPS}/2{env}.found").read_text() == "old, and a first line"
    assert texts(etc) == ["new", "new", "new"]


def test_one_that_cannot_go_back_again_keeps_nothing_else_from_it(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses() -> str:
        asked.append("")
        Path(f"{backups.BACKUPS}/2{etc}/A").unlink(missing_ok=True)
        return "emerg" if len(asked) > 1 else ""

    asked: list[str] = []
    monkeypatch.setattr(nginx, "complaint", refuses)
    with pytest.raises(Failure, match=r"nginx refuses the files .*; \S+/A could not be put back: \S+/A is gone"):
        roll_back()
    assert texts(etc) == ["old", "new", "new"]
    assert f"{etc}/A" in services.load_note("nginx")["files"], "the session tries once more"


def test_a_restart_that_fails_brings_back_what_was_there_now(
    tmp_path: Path, etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what was there before an earlier deploy, which nothing has loaded, wrote it: all goes back, or nothing."""
    env = tmp_path / ".env"
    env.write_text("old")
    services.replace_file("1", "app-api", [], str(env), b"new", files.sha256(b"old"), 0o600)
    note = services.load_note("app-api")

    def restart_fails(**_: object) -> None:
        services.undo(services.of("api"))
        raise Failure("it does not stay up")

    monkeypatch.setattr(pm2, "read", lambda **_: None)
    monkeypatch.setattr(pm2, "processes", lambda _: [])
    monkeypatch.setattr(restart, "run_what_is_on_disk", restart_fails)
    with pytest.raises(Failure, match=r"^it does not stay up$"):
        roll_back()
    assert (env.read_text(), texts(etc)) == ("new", ["new", "new", "new"])
    assert services.load_note("app-api") == note, "its way back"
