"""One look reads all nouns, side by side, and none stands in another's way."""

from __future__ import annotations

import errno
import re
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from remote import Failure, wire
from remote.look import NOUNS, look, show

Have = Callable[..., None]


@pytest.fixture
def have(monkeypatch: pytest.MonkeyPatch) -> Have:
    """Nouns, each with its `read`."""

    def add(**reads: Callable[..., Any]) -> None:
        for noun, read in reads.items():
            module = ModuleType(f"remote.{noun}")
            module.read = read  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, f"remote.{noun}", module)
        monkeypatch.setattr("remote.look.NOUNS", [*NOUNS, *reads])

    return add


def raising(error: Exception) -> Callable[..., Any]:
    def read() -> None:
        raise error

    return read


def test_side_by_side(have: Have) -> None:
    """Each waits until all have begun."""
    all_here = threading.Barrier(3, timeout=60)

    def read(*, value: int) -> int:
        all_here.wait()
        return value

    have(one=read, two=read, three=read)
    asked = {noun: {"value": number} for number, noun in enumerate(("one", "two", "three"))}
    assert look(asked) == {"one": 0, "two": 1, "three": 2}


def test_in_the_order_asked(have: Have) -> None:
    """Whichever is done first: the first that fails is the one that the operator is told."""
    done = threading.Event()
    have(slow=lambda: done.wait(60), fast=done.set)
    assert list(look({"slow": {}, "fast": {}})) == ["slow", "fast"]


def test_one_that_fails_leaves_the_others(have: Have) -> None:
    have(
        fine=lambda: {"a": 1},
        unfit=raising(Failure("npm is not installed: apt-get install npm")),
        full=raising(OSError(errno.ENOSPC, "No space left on device", "/F")),
        denied=raising(PermissionError(errno.EACCES, "Permission denied", "/G")),
        broken=raising(KeyError("a")),
    )
    found = look({noun: {} for noun in ("unfit", "full", "denied", "broken", "fine", "nowhere")})
    # A defect of ours comes with its place in the source.
    found["broken"]["error"], places = re.subn(r" \([^()]+ line \d+\)$", "", found["broken"]["error"])
    assert places == 1
    assert found == {
        "fine": {"a": 1},
        "unfit": {"error": "npm is not installed: apt-get install npm"},
        "full": {"error": "ENOSPC: No space left on device, /F"},
        "denied": {"error": "EACCES: Permission denied, /G"},
        "broken": {"error": "KeyError: 'a'"},
        "nowhere": {"error": "nowhere is no noun"},
    }


def test_arguments_that_do_not_fit(have: Have) -> None:
    have(one=lambda *, path: path)
    assert "unexpected keyword argument" in look({"one": {"file": "F"}})["one"]["error"]


def test_nothing_asked() -> None:
    assert look({}) == {}


def test_root_is_needed(have: Have, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    have(one=raising(AssertionError("looked")))
    with pytest.raises(SystemExit, match="root is needed: connect as root, or set _sudo"):
        show(questions={"one": {}})


def test_show_prints_one_line(have: Have, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    have(one=lambda: "\n\udcff")
    show(questions={"one": {}})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert wire.unpack(out) == {"readings": {"one": "\n\udcff"}}
