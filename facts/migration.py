"""The marketplace migration, as the database knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NAME = "add_marketplace_fields_to_companies.sql"
COLUMNS = ("integration_status", "marketplace_user_id", "whatsapp_connected", "api_key", "webhook_secret")


@dataclass(frozen=True)
class Migration:
    """`columns` counts those of COLUMNS that are there; `applied` is the ledger's SHA-256 and `file` that of the
    application's own migration file, None where there is none."""

    companies: bool
    columns: int
    applied: str | None
    file: str | None

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Migration:
        return cls(**raw)
