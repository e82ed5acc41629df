"""The application's two source files that get a marked block each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from remote import unpack

ROUTES = "src/api/routes/yclients-marketplace.js"
SESSION_POOL = "src/integrations/whatsapp/session-pool.js"


@dataclass(frozen=True)
class Source:
    """The files' bytes by path below the application's folder, None for a file that is not there."""

    files: dict[str, bytes | None]

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Source:
        return cls({file: None if packed is None else unpack(packed) for file, packed in raw.items()})
