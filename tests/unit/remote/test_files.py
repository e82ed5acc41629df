"""A file is the old one or the new one, whole, with the rights that it had."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote import Failure, files
from tests.unit.conftest import ROOT
from tests.unit.remote.conftest import names


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def raising(number: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With nothing in it."""
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def test_a_new_file_gets_the_mode_whatever_the_umask(folder: Path) -> None:
    old = os.umask(0o077)
    try:
        files.write_whole(f"{folder}/F", b"new\x00\xff", 0o644)
    finally:
        os.umask(old)
    assert (folder / "F").read_bytes() == b"new\x00\xff"
    assert mode(folder / "F") == 0o644
    assert names(folder) == ["F"]


def test_a_new_file_gets_the_owner_and_an_old_one_keeps_its(folder: Path) -> None:
    for owner in ((1234, 567), (0, 0)):
        files.write_whole(f"{folder}/new", b"a", 0o600, owner=owner)
        assert files.owner(f"{folder}/new") == (1234, 567)


def test_a_folder_is_given_away_and_not_where_its_links_lead(folder: Path) -> None:
    (folder / "given/below").mkdir(parents=True)
    (folder / "given/below/file").touch()
    (folder / "other").mkdir()
    (folder / "given/link").symlink_to(folder / "other")
    files.give(f"{folder}/given", (1234, 567))
    given = [path for path in [folder / "given", *folder.glob("given/**/*")] if path.lstat().st_uid == 1234]
    assert len(given) == 4
    assert files.owner(f"{folder}/other")[0] != 1234


def test_an_old_files_mode_and_owner_stay(folder: Path) -> None:
    file = folder / "F"
    file.write_bytes(b"old")
    if os.geteuid() == 0:
        os.chown(file, 12345, 54321)
    file.chmod(0o6751)
    before = file.stat()

    files.write_whole(str(file), b"new", 0o600)

    after = file.stat()
    assert file.read_bytes() == b"new"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino


# POSIX ACL, version 2: owner rw-, user 12345 r--, group r--, mask r--, others ---
ACL = bytes.fromhex("02000000 01000600ffffffff 0200040039300000 04000400ffffffff 10000400ffffffff 20000000ffffffff")


@pytest.mark.parametrize(("name", "value"), [("user.note", b"of somebody else"), ("system.posix_acl_access", ACL)])
def test_an_old_files_extended_attributes_stay(folder: Path, name: str, value: bytes) -> None:
    file = folder / "F"
    file.write_bytes(b"old")
    try:
        os.setxattr(file, name, value)
    except OSError as error:
        pytest.skip(f"the file system of {folder} has no {name} ({error.strerror})")

    files.write_whole(str(file), b"new", 0o600)

    assert file.read_bytes() == b"new"
    assert os.getxattr(file, name) == value


@pytest.mark.parametrize("call", ["fsync", "replace", "fchmod", "fchown"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_what_fails_leaves_the_old_file_and_says_why(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    file = folder / "F"
    file.write_bytes(b"old")
    monkeypatch.setattr(os, call, raising(number))

    with pytest.raises(Failure) as failure:
        files.write_whole(str(file), b"new", 0o600)

    reason = f"{errno.errorcode[number]}: {os.strerror(number)}"
    assert str(failure.value) == f"{file} was not written, and the old one stands: {reason}"
    assert file.read_bytes() == b"old"
    assert names(folder) == ["F"]


def test_a_folder_that_is_not_there(folder: Path) -> None:
    with pytest.raises(Failure, match="ENOENT: No such file or directory, /"):
        files.write_whole(f"{folder}/no/F", b"new", 0o600)


def test_a_link_in_the_temporary_files_place_is_not_followed(folder: Path) -> None:
    (folder / "other").write_bytes(b"of somebody else")
    Path(files.temporary(f"{folder}/F")).symlink_to("other")
    files.write_whole(f"{folder}/F", b"new", 0o600)
    assert not (folder / "F").is_symlink()
    assert (folder / "other").read_bytes() == b"of somebody else"


def test_last_runs_when_only_the_rename_is_left(folder: Path) -> None:
    file = folder / "F"
    file.write_bytes(b"old")
    seen: list[bytes] = []

    def last() -> None:
        seen.extend(path.read_bytes() for path in sorted(folder.iterdir()))

    files.write_whole(str(file), b"new", 0o600, last)

    assert seen == [b"new", b"old"]  # the temporary file, with its leading dot, is the first
    assert file.read_bytes() == b"new"


def test_a_failure_of_last_keeps_the_old_file(folder: Path) -> None:
    file = folder / "F"
    file.write_bytes(b"old")

    def last() -> None:
        raise Failure("the note cannot be written")

    with pytest.raises(Failure) as failure:
        files.write_whole(str(file), b"new", 0o600, last)

    assert str(failure.value) == f"{file} was not written, and the old one stands: the note cannot be written"
    assert file.read_bytes() == b"old"
    assert names(folder) == ["F"]


def test_content_is_never_where_others_may_read_it(folder: Path) -> None:
    file = folder / ".env"
    file.write_bytes(b"old")
    file.chmod(0o640)
    modes: list[int] = []
    files.write_whole(str(file), b"new", 0o600, lambda: modes.append(mode(Path(files.temporary(str(file))))))
    assert modes == [0o640]


def test_killed_before_the_rename(folder: Path) -> None:
    file = folder / "F"
    file.write_bytes(b"old")
    program = f"""import os, signal
from remote import files
files.write_whole({str(file)!r}, b"half", 0o600, lambda: os.kill(os.getpid(), signal.SIGKILL))"""
    done = subprocess.run([sys.executable, "-S", "-c", program], cwd=ROOT)

    assert done.returncode == -signal.SIGKILL
    assert file.read_bytes() == b"old"
    assert len(names(folder)) == 2

    files.write_whole(str(file), b"new", 0o600)
    assert file.read_bytes() == b"new"
    assert names(folder) == ["F"]


def test_nginx_does_not_include_a_temporary_file() -> None:
    """`include sites-enabled/*` takes no name with a leading dot."""
    assert files.temporary("/etc/nginx/sites-enabled/site").rpartition("/")[2].startswith(".")


@pytest.mark.parametrize("before", ["a file", "a link", "a link to nothing", "nothing", "a left-over"])
def test_place_symlink(folder: Path, before: str) -> None:
    path, target = folder / "L", folder / "target"
    target.write_bytes(b"target")
    if before == "a file":
        path.write_bytes(b"old")
    elif before.startswith("a link"):
        path.symlink_to("/nowhere" if before.endswith("nothing") else folder)
    elif before == "a left-over":
        Path(files.temporary(str(path))).write_bytes(b"half")

    files.place_symlink(str(path), str(target))

    assert str(path.readlink()) == files.link(str(path)) == str(target)
    assert target.read_bytes() == b"target"
    assert names(folder) == ["L", "target"]


def test_a_symlink_that_cannot_be_placed_leaves_nothing(folder: Path) -> None:
    (folder / "L").mkdir()
    with pytest.raises(IsADirectoryError):
        files.place_symlink(f"{folder}/L", "target")
    assert names(folder) == ["L"]


@given(st.binary())
def test_any_bytes_are_a_text(content: bytes) -> None:
    assert files.content(files.text(content)) == content


def test_read(folder: Path) -> None:
    (folder / "F").write_bytes(b" a\xff\n")
    assert files.read(f"{folder}/F") == b" a\xff\n"
    assert files.read_text(f"{folder}/F") == "a\udcff"
    assert files.read(f"{folder}/no") is None
    assert files.read(f"{folder}/F/below-a-file") is None
    assert files.read_text(f"{folder}/no") == ""
    with pytest.raises(IsADirectoryError):
        files.read(str(folder))


def test_sha256() -> None:
    assert files.sha256(None) is None
    assert files.sha256(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_tail_of_a_large_file_reads_its_end_alone(folder: Path) -> None:
    file = folder / "log"
    with file.open("wb") as log:
        log.truncate(200 * 1024**3)
        log.seek(0, os.SEEK_END)
        log.write("\nlast line é\n".encode())
    begun = time.monotonic()
    found = files.tail(str(file))
    assert time.monotonic() - begun < 30
    assert found.endswith("\nlast line é")
    assert len(found.encode()) <= 64 * 1024


def test_tail(folder: Path) -> None:
    (folder / "log").write_bytes(b"one\n\xd0\xa2wo\n\n")
    assert files.tail(f"{folder}/log") == "one\nТwo"
    assert files.tail(f"{folder}/log", 5) == "\ufffdwo"
    assert files.tail(f"{folder}/no") == files.tail(str(folder)) == files.tail("") == ""


def test_reason() -> None:
    assert files.reason(OSError(errno.ENOSPC, "No space left on device", "/F")) == (
        "ENOSPC: No space left on device, /F"
    )
    assert files.reason(PermissionError(errno.EACCES, "Permission denied")) == "EACCES: Permission denied"


def test_reason_of_an_error_without_a_number() -> None:
    assert files.reason(TimeoutError("timed out")) == "TimeoutError: timed out"


def test_private_folders(folder: Path) -> None:
    folder.chmod(0o755)
    files.make_private_folder(f"{folder}/a/b")
    files.make_private_folder(f"{folder}/a/b")
    assert [mode(folder), mode(folder / "a"), mode(folder / "a/b")] == [0o755, 0o700, 0o700]


def test_remove_and_names(folder: Path) -> None:
    (folder / "tree/b").mkdir(parents=True)
    (folder / "tree/a").write_bytes(b"")
    (folder / "link").symlink_to("tree")
    assert files.names(f"{folder}/tree") == ["a", "b"]
    assert files.names(f"{folder}/tree/a") == files.names(f"{folder}/no") == []
    files.remove_tree(f"{folder}/link")
    assert files.names(str(folder)) == ["tree"]
    files.remove_tree(f"{folder}/tree")
    files.remove_tree(f"{folder}/tree")
    files.remove(f"{folder}/tree")
    assert files.names(str(folder)) == []


def test_what_is_not_there_is_removed_from_a_read_only_filesystem_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux says EROFS before it looks whether there is anything."""

    def unlink(path: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    monkeypatch.setattr(os, "unlink", unlink)
    files.remove(f"{folder}/none")
