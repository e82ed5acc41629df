"""Wherever a work is killed, or its disk fails: each file is old or new, and whole; the next run heals.

This is a selection; `bin/faults --calls` tries all. And proof that each kind of mistake is noticed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote import backups, files, npm, services
from tests.crash import trial
from tests.crash.trial import KILL, KINDS
from tests.crash.works import WORKS, replace

pytestmark = pytest.mark.slow


def test_every_system_call() -> None:
    jobs = [(name, kind) for name in WORKS for kind in (KINDS if name.startswith("dotenv") else (KILL,))]
    jobs.append(("rollback.roll_back, refused", "EIO"))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        results = [*trial.run(jobs, Path(folder))]
    assert {point: problems for result in results for point, problems in result.problems.items()} == {}
    tried = {call for result in results for call in result.calls}
    assert {"openat", "write", "fsync", "rename", "fchmod", "fchown", "mkdir", "unlink", "symlink", "flock"} <= tried
    assert min(len(result.calls) for result in results) >= 8, "too few points to prove much"


# --- guards taken out


def write_in_place() -> None:
    def write(path: str, content: bytes, mode: int, last: Callable[[], None] = lambda: None, **_: Any) -> None:
        last()
        Path(path).touch(mode)
        with Path(path).open("wb", 16) as file:
            file.write(content)

    replace(files, write_whole=write)


def no_note() -> None:
    replace(services, before_change=lambda *_: None)


def no_backup() -> None:
    replace(
        backups, keep=lambda deploy, *_, **__: {"deploy": deploy, "app": "", "undoes": "", "kept": None, "wrote": None}
    )


def no_undo() -> None:
    replace(services, undo=lambda *_: [])


def mode_of_the_umask() -> None:
    replace(files, _set_attributes=lambda *_: None)


def link_in_two_steps() -> None:
    def place(path: str, target: str, last: Callable[[], None]) -> None:
        last()
        files.remove(path)
        Path(path).symlink_to(target)

    replace(files, place_symlink=place)


def package_in_two_steps() -> None:
    def place(made: str, target: str) -> None:
        if Path(target).exists():
            Path(target).rename(f"{made}.old")
        Path(made).rename(target)

    replace(npm, place=place)


def manifest_last() -> None:
    def remove(path: str) -> None:
        for file in sorted(files.below(path), reverse=True):
            Path(file).unlink()

    replace(files, remove=lambda _: None, remove_tree=remove)


@pytest.mark.parametrize(
    ("sabotage", "name", "kind", "noticed"),
    [
        (write_in_place, "dotenv_edit.write", KILL, "neither old nor new"),
        (no_note, "dotenv_edit.write", KILL, "no note says that it is not loaded"),
        (no_backup, "source.write", KILL, "there is no backup of the old one"),
        (no_undo, "source.write", "EIO", "not put back"),
        (mode_of_the_umask, "dotenv_edit.write", "EIO", "600 # наш"),
        (link_in_two_steps, "nginx.write_site, a copy", KILL, "etc/enabled is neither old nor new"),
        (package_in_two_steps, "npm.install", KILL, "old is neither old nor new"),
        (manifest_last, "backups.keep", KILL, "its copy is not whole"),
    ],
)
def test_a_mistake_is_noticed(tmp_path: Path, sabotage: Callable[[], None], name: str, kind: str, noticed: str) -> None:
    job = (name, kind)
    (result,) = trial.run([job], tmp_path, sabotage)
    assert any(noticed in problem for problems in result.problems.values() for problem in problems), result
