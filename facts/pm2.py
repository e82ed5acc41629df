"""The API's process under pm2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pm2:
    """`status`: pm2's own word (online, errored, stopped, launching), `unknown` for an app that pm2 does not know, or
    `no daemon`. `stale`: it does not run, or is older than its files. `shadowed`: keys of .env that it ignores."""

    status: str
    stale: bool
    shadowed: list[str]

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Pm2:
        return cls(**raw)
