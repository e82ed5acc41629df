"""Does a service run what is on disk? And the way back from a change that it has not run yet."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from remote import Failure, backups, files, lock, services
from remote.processes import Process
from remote.readings import Entry
from tests.unit.conftest import ROOT
from tests.unit.remote.conftest import names


def process(number: int, started: float | None = None) -> Process:
    return Process(number, f"boot/{number}/1", time.time() + 1000 if started is None else started)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/F").write_bytes(b"old")
    return tmp_path / "etc/F"


def digest(content: bytes) -> str:
    return files.sha256(content) or ""


def note(name: str) -> object:
    return json.loads(Path(f"{services.STATE}/{name}.json").read_text())


# --- fingerprint

# Of commit c58db06, facts/look.js, to the letter: its notes are on hosts.
JAVASCRIPT = """
const fs = require('fs');
const crypto = require('crypto');
const sha256 = (buffer) => crypto.createHash('sha256').update(buffer).digest('hex');
const fingerprint = (files) =>
  sha256(
    files
      .map((file) => [fs.lstatSync(file, { throwIfNoEntry: false }), fs.statSync(file, { throwIfNoEntry: false })])
      .map((pair, at) => [files[at], ...pair.map((stat) => stat && [stat.ino, stat.size, stat.ctimeMs])])
      .map((each) => JSON.stringify(each))
      .sort()
      .join(),
  );
const asked = JSON.parse(fs.readFileSync(0));
console.log(JSON.stringify(asked.map(fingerprint)));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_fingerprint_is_that_of_the_javascript(tmp_path: Path) -> None:
    names = ["a", "b c", "quote\"'`", "back\\slash", "tab\tnewline\n", "\x01\x7f", "Ключ", "é", "\u2028", "💇", ".env"]
    paths = [f"{tmp_path}/{name}" for name in names]
    for number, path in enumerate(paths):
        Path(path).write_bytes(b"x" * number * 1000)
        time.sleep(0.001)  # of one millisecond each
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "to nothing").symlink_to("no")
    others = ["link", "to nothing", "no", "", "z/../a"]
    paths += [f"{tmp_path}/{name}" for name in others]
    asked = [paths, paths[::-1], [], *([path] for path in paths)]

    done = subprocess.run(["node", "-e", JAVASCRIPT], input=json.dumps(asked).encode(), capture_output=True, check=True)

    assert [services.fingerprint(each) for each in asked] == json.loads(done.stdout)
    assert services.fingerprint(paths) == services.fingerprint(paths[::-1])


def test_the_javascript_above_is_that_of_the_commit() -> None:
    done = subprocess.run(["git", "show", "c58db06:facts/look.js"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("this checkout does not have the commit")
    start = done.stdout.index("const fingerprint")
    function = done.stdout[start : done.stdout.index(";\n", start) + 2]
    assert "ctimeMs" in function
    assert function in JAVASCRIPT


def test_each_kind_of_change_changes_the_fingerprint(file: Path) -> None:
    link = file.parent / "L"
    paths = [str(file), str(link), str(file.parent)]
    seen = [services.fingerprint(paths)]

    def look() -> None:
        seen.append(services.fingerprint(paths))

    times = file.stat()
    file.write_bytes(b"new")  # of the same size
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # and of the same time
    look()
    link.symlink_to("F")
    look()
    link.unlink()
    link.symlink_to(file)
    look()
    file.chmod(0o600)
    look()
    file.unlink()
    look()
    assert len(set(seen)) == len(seen) == 6
    assert services.fingerprint(paths) == seen[-1]


# --- is_stale: three witnesses


def test_our_note_of_a_change_decides_first(file: Path) -> None:
    """Though the fingerprint is right, and the process younger than its files."""
    running = [process(1)]
    services.after_start("api", running, services.fingerprint([str(file)]))
    services.before_change("api", running, {})
    assert services.is_stale("api", running, [str(file)])


def test_without_it_the_fingerprint_decides(file: Path) -> None:
    """Whatever the times say: these are of a clock that was set meanwhile."""
    old, young = process(1, started=0), process(1)
    services.before_change("api", [process(2)], {})  # of an earlier process
    services.save_note("api.started", {"processes": [old.id], "fingerprint": services.fingerprint([str(file)])})
    assert not services.is_stale("api", [old], [str(file)])
    file.write_bytes(b"new")
    assert services.is_stale("api", [young], [str(file)])


def test_without_both_the_times_decide(file: Path) -> None:
    """Of the name, and of what it leads to."""
    services.before_change("api", [process(2)], {})
    services.save_note("api.started", {"processes": [process(3).id], "fingerprint": "another"})
    changed = file.stat().st_ctime
    assert services.is_stale("api", [process(1, changed - 1)], [str(file)])
    assert not services.is_stale("api", [process(1, changed + 1)], [str(file), f"{file}-no"])

    link = file.parent / "L"
    link.symlink_to(file)
    os.utime(link, follow_symlinks=False)
    assert services.is_stale("api", [process(1, changed - 1)], [str(link)])


def test_the_oldest_process_counts(file: Path) -> None:
    changed = file.stat().st_ctime
    assert services.is_stale("nginx", [process(1, changed + 1), process(2, changed - 1)], [str(file)])


def test_the_notes_of_one_service_say_nothing_of_another(file: Path) -> None:
    services.before_change("nginx", [process(1)], {})
    assert not services.is_stale("api", [process(1)], [str(file)])


# --- the notes


def entry(kept: str | None, wrote: str = "") -> Entry:
    return {"deploy": "1", "app": "", "undoes": "", "kept": kept, "wrote": wrote, "undone": False}


def test_a_second_change_before_a_restart_keeps_the_first_backup(file: Path) -> None:
    running = [process(1)]
    services.before_change("api", running, {str(file): entry("first", "a")})
    services.before_change("api", running, {str(file): entry("second", "b"), "other": entry(None)})
    changed = {str(file): entry("first", "b"), "other": entry(None)}
    assert note("api") == {"processes": [process(1).id], "files": changed}


def test_a_second_change_while_nothing_runs_keeps_the_first_backup_too(file: Path) -> None:
    services.before_change("api", [process(1)], {str(file): entry("first")})
    services.before_change("api", [], {str(file): entry("second")})
    assert note("api") == {"processes": [process(1).id], "files": {str(file): entry("first")}}


def test_after_a_restart_a_new_note_starts(file: Path) -> None:
    """By somebody else: nothing removed our note, but these processes read what we wrote, and have served since."""
    services.before_change("api", [process(1)], {str(file): entry("first")})
    services.settle_outlived("api", [process(2, started=0)])
    services.before_change("api", [process(2)], {"other": entry("second")})
    assert note("api") == {"processes": [process(2).id], "files": {"other": entry("second")}}


def test_what_they_may_still_end_of_keeps_its_way_back(file: Path) -> None:
    """pm2's daemon died after a token was written, systemd started the API on it, and now comes the next file."""
    services.before_change("api", [process(1)], {str(file): entry("first")})
    young = process(2, time.time())
    services.before_change("api", [young], {"other": entry("second")})
    changed = {str(file): entry("first"), "other": entry("second")}
    assert note("api") == {"processes": [process(1).id, young.id], "files": changed}
    assert services.is_stale("api", [young], [])


def test_after_start(file: Path) -> None:
    services.before_change("api", [process(1)], {str(file): entry(None)})
    services.after_start("api", [process(2)], "f")
    assert note("api.started") == {"processes": [process(2).id], "fingerprint": "f"}
    assert services.undo("api") == ([], [])
    assert file.exists()


def test_undo(file: Path) -> None:
    link, new = file.parent / "L", file.parent / "new"
    link.symlink_to("F")
    kept = {str(each): backups.keep("1", str(each), digest(b"changed")) for each in (file, link, new)}
    services.before_change("nginx", [process(1)], kept)
    for each in (file, link, new):
        files.write_whole(str(each), b"changed", 0o644)

    assert services.undo("nginx") == ([str(file), str(link), str(new)], [])

    assert file.read_bytes() == b"old"
    assert str(link.readlink()) == "F"
    assert not new.exists()
    assert services.undo("nginx") == ([], [])


def test_undo_keeps_what_somebody_else_wrote_meanwhile(file: Path) -> None:
    """A line that was appended while the API failed to start: it was in neither the file nor a backup."""
    services.replace_file("1", "api", [process(1)], str(file), b"new", digest(b"old"), 0o600)
    file.write_bytes(b"new\nTHEIRS=1\n")

    (said,) = services.undo("api").files

    assert file.read_bytes() == b"old"
    where = f"{backups.BACKUPS}/1{file}.found"
    assert said == f"{file} (somebody else had changed it since: their text is in {where})"
    assert Path(where).read_bytes() == b"new\nTHEIRS=1\n"


def test_what_cannot_go_back_keeps_nothing_else_from_it(file: Path) -> None:
    """Its backup is gone, say, or the disk is full: the others go back, and this one stays noted."""
    other = file.parent / "G"
    other.write_bytes(b"old")
    for each in (file, other):
        services.replace_file("1", "api", [process(1)], str(each), b"new", digest(b"old"), 0o600)
    Path(f"{backups.BACKUPS}/1{file}").unlink()
    gone = f"{file}: {backups.BACKUPS}/1{file} is gone, so {file} cannot be put back"
    assert services.undo("api") == ([str(other)], [gone])
    assert (file.read_bytes(), other.read_bytes()) == (b"new", b"old")
    assert list(services.load_note("api")["files"]) == [str(file)]


def test_a_note_of_the_bundle_before(file: Path) -> None:
    kept = backups.keep("1", str(file), "")["kept"]
    services.save_note("api", {"processes": [process(1).id], "files": {str(file): kept}})
    file.write_bytes(b"new")
    services.before_change("api", [process(1)], {str(file): entry("x", "b")})
    services.before_change("api", [process(1)], {})
    assert note("api") == {"processes": [process(1).id], "files": {str(file): entry(kept, "b")}}
    services.save_note("api", {"processes": [process(1).id], "files": {str(file): kept}})
    assert services.undo("api") == ([str(file)], [])
    assert file.read_bytes() == b"old"


def test_what_is_told_of_it() -> None:
    assert str(services.Undone([], [])) == ""
    assert str(services.Undone(["/a", "/b"], [])) == "; put back as they were: /a, /b"
    assert str(services.Undone([], ["/c: why"])) == "; could not be put back: /c: why"


# --- replace_file


def test_replace_file(file: Path) -> None:
    services.replace_file("1", "api", [process(1)], str(file), b"new", files.sha256(b"old"), 0o600)
    assert file.read_bytes() == b"new"
    assert list(backups.read(keys=[])["1"]) == [str(file)]
    assert services.is_stale("api", [process(1)], [])
    assert services.undo("api") == ([str(file)], [])
    assert file.read_bytes() == b"old"


def test_replace_file_makes_one_that_is_not_there(file: Path) -> None:
    new = file.parent / "new"
    services.replace_file("1", "api", [], str(new), b"new", None, 0o600)
    assert new.read_bytes() == b"new"
    assert new.stat().st_mode & 0o777 == 0o600
    assert services.undo("api") == ([str(new)], [])
    assert not new.exists()


@pytest.mark.parametrize("expected", [None, files.sha256(b"what the plan saw")])
def test_replace_file_refuses_what_changed_meanwhile(file: Path, var: Path, expected: str | None) -> None:
    with pytest.raises(Failure, match="F was changed by somebody else just now; run again"):
        services.replace_file("1", "api", [process(1)], str(file), b"new", expected, 0o600)
    assert file.read_bytes() == b"old"
    assert names(file.parent) == ["F"]
    assert not var.exists()


def test_replace_file_looks_again_before_its_rename(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they wrote stays, and is not taken for ours by an undo."""
    real = services.before_change

    def before_change(*arguments: Any) -> None:
        real(*arguments)
        file.write_bytes(b"theirs")

    monkeypatch.setattr(services, "before_change", before_change)
    with pytest.raises(Failure, match="F was changed by somebody else just now; run again"):
        services.replace_file("1", "api", [process(1)], str(file), b"new", digest(b"old"), 0o600)
    assert services.undo("api") == ([], [])
    assert file.read_bytes() == b"theirs"
    assert not services.is_stale("api", [process(1)], [])


def test_a_symlink_stays_one(file: Path) -> None:
    link = file.parent / "L"
    link.symlink_to("F")
    services.replace_file("1", "api", [process(1)], str(link), b"new", files.sha256(b"old"), 0o600)
    assert str(link.readlink()) == "F"
    assert file.read_bytes() == b"new"
    assert services.undo("api") == ([str(file)], [])
    assert str(link.readlink()) == "F"
    assert file.read_bytes() == b"old"


def test_no_note_of_a_change_that_was_not_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Failure, match="ENOSPC"):
        services.replace_file("1", "api", [process(1)], str(file), b"new", files.sha256(b"old"), 0o600)
    assert file.read_bytes() == b"old"
    assert not Path(f"{services.STATE}/api.json").exists()


# --- what an earlier deploy wrote


def left_by(deploy: str, file: Path, ran: Process) -> None:
    """Killed before the restart."""
    services.replace_file(deploy, "api", [ran], str(file), b"made", digest(b"old"), 0o600)


@contextmanager
def deploying(deploy: str) -> Iterator[None]:
    with lock.held(lock.DEPLOY, 0) as mine:
        assert mine is not None
        os.write(mine, json.dumps({"deploy": deploy}).encode())
        yield


def test_what_has_been_running_since_is_not_undone(file: Path) -> None:
    """By whomever it was started: at the next boot, say. It may have served for weeks."""
    left_by("1", file, process(1))
    services.settle_outlived("api", [process(2, time.time() - 3600)])
    assert services.undo("api") == ([], [])
    assert file.read_bytes() == b"made"


@pytest.mark.parametrize(
    ("running", "deploy"),  # number and age, seconds
    [
        ([], "2"),  # it does not run: what was written may be why
        ([(1, 3600)], "2"),  # it has not read it
        ([(2, 5)], "2"),  # it may end of it yet
        ([(2, 3600)], "1"),  # this deploy's own is not for good before its restart
    ],
)
def test_what_has_not_proved_good_is_undone(file: Path, running: list[tuple[int, int]], deploy: str) -> None:
    left_by("1", file, process(1))
    with deploying(deploy):
        services.settle_outlived("api", [process(number, time.time() - age) for number, age in running])
    theirs = f" (what deploy 1 had written is in {backups.BACKUPS}/1{file}.found)" if deploy == "2" else ""
    assert services.undo("api") == ([f"{file}{theirs}"], [])
    assert file.read_bytes() == b"old"


def test_what_is_unproved(file: Path) -> None:
    young, old = process(2, time.time() - 5), process(2, time.time() - 3600)
    assert not services.is_unproved("api", [young]), "nobody wrote anything"
    left_by("1", file, process(1))
    assert services.is_unproved("api", [young])
    assert services.is_unproved("api", [old, young]), "one that is started again and again, of several"
    for fine in ([], [old], [process(1, time.time())]):  # it does not run, has proved itself, has not read it
        assert not services.is_unproved("api", fine)


def test_what_an_earlier_deploy_had_written_is_kept_where_it_is_undone(file: Path) -> None:
    """It may have made a secret, which is nowhere else."""
    left_by("1", file, process(1))
    aside = Path(f"{backups.BACKUPS}/1{file}.found")
    with deploying("2"):
        assert services.undo("api") == ([f"{file} (what deploy 1 had written is in {aside})"], [])
    assert (file.read_bytes(), aside.read_bytes()) == (b"old", b"made")


def test_what_this_deploy_has_written_is_not(file: Path) -> None:
    with deploying("1"):
        left_by("1", file, process(1))
        assert services.undo("api") == ([str(file)], [])
