"""nginx: the site's two files, the configuration on disk, and whether that is what runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from remote import unpack


@dataclass(frozen=True)
class File:
    """`content` of a symlink is its target's; None when there is nothing to read."""

    type: Literal["absent", "file", "symlink"]
    target: str | None
    content: bytes | None

    @classmethod
    def of(cls, raw: dict[str, Any]) -> File:
        content = raw["content"]
        return cls(raw["type"], raw["target"], None if content is None else unpack(content))


@dataclass(frozen=True)
class Nginx:
    """`dump` is what `nginx -T` printed; `stale`: the workers are older than the configuration on disk."""

    dump: bytes
    available: File
    enabled: File
    certificate: bool
    running: bool
    stale: bool

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Nginx:
        files = {name: File.of(raw[name]) for name in ("available", "enabled")}
        return cls(**{**raw, **files, "dump": unpack(raw["dump"])})
