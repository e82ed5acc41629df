"""What must be true of an edited `.env`, found by other means than the editor's: the real dotenv 17's own pattern, the
real python-dotenv, and Python's own decoding."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from credentials import quoted
from remote import Failure, dotenv_edit
from rules import KEYS
from tests.unit.conftest import Node

_ASTRAL = re.compile("[\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Edited:
    """`content` is None where the edit was refused, and `failure` then says why."""

    content: bytes | None
    failure: str


def edit(old: bytes, values: dict[str, str], once: tuple[str, ...] = ()) -> Edited:
    literals = {key: quoted(key, value) for key, value in values.items()}
    try:
        return Edited(dotenv_edit.edit(old, values, literals, once), "")
    except Failure as failure:
        return Edited(None, str(failure))


def check(node: Node, old: bytes, values: dict[str, str], once: tuple[str, ...] = ()) -> Edited:
    """Edit, and look at the outcome from every side."""
    edited = edit(old, values, once)
    new = edited.content
    if new is None:
        assert edited.failure.startswith(".env: ") and "\n" not in edited.failure
        assert not any(value in edited.failure for value in values.values() if len(value) > 3)
        return edited
    ours = (*values, *once)
    assert node.parse(new) == {**node.parse(old), **values}, "dotenv 17 reads something else"
    before, after = foreign(node, old, ours), foreign(node, new, ours)
    assert after == before or after in [before + end for end in (b"\n", b"\r\n", b"\r")], "a foreign byte changed"
    for key in ours:
        times = [each for each, _, _ in _assignments(node, new)[1]].count(key)
        assert times == (1 if key in node.parse(new) else 0), f"{key} is there {times} times"
    if values and _python_parses(foreign(node, old, tuple(values))):
        read = _python_reads(new)
        assert {key: read.get(key) for key in values} == values, "python-dotenv reads something else"
    assert edit(new, values, once).content == new, "a second edit changes something"
    return edited


def foreign(node: Node, content: bytes, ours: tuple[str, ...] = KEYS) -> bytes:
    """The content without our assignments: each with its `export` and the spaces after it; the whole line, where
    nothing but indentation is left of it."""
    text, found = _assignments(node, content)
    kept, at = "", 0
    for key, start, end in found:
        if key in ours:
            line = max(text.rfind("\n", 0, start), text.rfind("\r", 0, start)) + 1
            before = re.sub(r"export[ \t]+$", "", text[line:start])
            spaces, line_end = re.match(r"([ \t]*)(\r\n|\r|\n|\Z)?", text[end:]).groups()  # type: ignore[union-attr]
            whole = line_end is not None and not before.strip(" \t")
            kept += text[at : line if whole else line + len(before)]
            at = end + len(spaces) + (len(line_end) if whole else 0)
    return (kept + text[at:]).encode("utf-8", "surrogateescape")


def _assignments(node: Node, content: bytes) -> tuple[str, list[tuple[str, int, int]]]:
    """The text, every byte kept, and (key, start, end) of each assignment by dotenv's own pattern."""
    text = content.decode("utf-8", "surrogateescape")
    offsets = [match.start() for match in re.finditer(r"\r\n|[\s\S]", text)] + [len(text)]
    as_read = re.sub(r"\r\n?", "\n", _ASTRAL.sub("é", text))  # of a length with JavaScript's idea of it
    return text, [(key, offsets[start], offsets[end]) for key, start, end in node.ask("assignments", as_read)]


def _opened(content: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")


def _python_parses(content: bytes) -> bool:
    try:
        return not any(binding.error for binding in parse_stream(_opened(content)))
    except UnicodeDecodeError:
        return False


def _python_reads(content: bytes) -> dict[str, str | None]:
    return dotenv_values(stream=_opened(content))
