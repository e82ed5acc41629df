"""The old files that earlier deploys kept on the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Backups:
    """By deploy (its UTC time), oldest first: the files it changed."""

    deploys: dict[str, list[str]]

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Backups:
        return cls({deploy: list(files) for deploy, files in sorted(raw.items())})
