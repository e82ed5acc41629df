"""Somebody edits a file that we are about to replace, at each point in turn: what they wrote is there, or in a copy.

But for the rename itself: between our last look and that are microseconds, in which nothing of ours can be in the way.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from remote import Failure, backups, files, nginx, services
from tests.unit.remote import conftest

EVENTS = ("os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.rename", "open")


class Somebody:
    """Edits `file` before our `left`th call that changes a file."""

    def __init__(self) -> None:
        self.file, self.left = Path(), 0

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.left == 0 or event not in EVENTS:
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        if event == "os.rename" and arguments[1] == str(self.file):
            return
        self.left -= 1
        if self.left == 0:
            self.file.write_text(f"{self.file.read_text()}\ntheirs")


somebody = Somebody()
sys.addaudithook(somebody.hear)


@pytest.fixture(autouse=True)
def goes_away() -> Iterator[None]:
    yield
    somebody.left = 0


def replace(file: Path) -> None:
    services.replace_file("2", "nginx", [], str(file), b"newer", files.sha256(b"new"), 0o600)


def place_link(file: Path) -> None:
    nginx.write_site(
        "2", file=f"{file}.site", content="x", expected=None, link=str(file), replaced=files.sha256(b"new")
    )


def undo(_: Path) -> None:
    services.undo("nginx")


def roll_back(_: Path) -> None:
    conftest.roll_back()


@pytest.mark.parametrize("act", [replace, place_link, undo, roll_back])
def test_nothing_of_others_is_lost(etc: Path, act: Callable[[Path], None]) -> None:
    points = 0
    while True:
        points += 1
        file = etc / f"F{points}"
        file.write_text("old")
        services.replace_file("1", "nginx", [], str(file), b"new", files.sha256(b"old"), 0o600)
        somebody.file, somebody.left = file, points
        with suppress(Failure):
            act(file)
        if somebody.left:
            break
        texts = [each.read_text() for each in (file, *Path(backups.BACKUPS).glob(f"*{file}*"))]
        assert any("theirs" in text for text in texts), f"an edit before call {points} is lost: {texts}"
        services.settle("nginx")
        files.remove_tree(f"{backups.BACKUPS}/1")
        files.remove_tree(f"{backups.BACKUPS}/2")
    assert points > 3, "nothing was tried"
