"""The three packages in the application's `node_modules`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Package:
    """`version` is None when it is not installed; `range` and `locked` are None when the application lists none."""

    version: str | None
    complete: bool
    range: str | None
    locked: str | None


@dataclass(frozen=True)
class Npm:
    packages: dict[str, Package]

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Npm:
        return cls({name: Package(**package) for name, package in raw.items()})
