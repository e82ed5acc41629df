"""The three keys in the application's `.env`, as the application reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["absent", "empty", "placeholder", "weak", "set"]


@dataclass(frozen=True)
class Key:
    """One key. `weak`: a JWT_SECRET too short or publicly known. `equal`: to the operator's value. `times`: how often
    it is assigned."""

    kind: Kind
    equal: bool
    times: int


@dataclass(frozen=True)
class Dotenv:
    """`sha256` is of the whole file, None when there is none."""

    sha256: str | None
    keys: dict[str, Key]

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Dotenv:
        return cls(raw["sha256"], {name: Key(**key) for name, key in raw["keys"].items()})
