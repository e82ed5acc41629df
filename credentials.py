"""The operator's own secrets: from the process's environment, else from a local `.env`.

They leave this machine in one way only: over ssh, on the standard input of a program of ours.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from settings import BadInput

PARTNER_TOKEN, APP_ID, JWT_SECRET = KEYS = ("YCLIENTS_PARTNER_TOKEN", "YCLIENTS_APP_ID", "JWT_SECRET")
DATABASE_URL = "DATABASE_URL"

# What stands where a value should be: seen in the wild (app-contract.md), and what people type meanwhile.
PLACEHOLDERS = (
    "test_token_waiting_for_real",
    "ваш_partner_token_от_yclients",
    "ваш_application_id_от_yclients",
    "сгенерируйте_случайную_строку_32_символа",
    "changeme",
    "change_me",
    "change-me",
    "todo",
    "xxx",
)
MIN_JWT_SECRET = 32  # characters; anything shorter can be guessed, and counts as missing


class Secret(str):
    """A text that does not show itself when printed by mistake."""

    def __repr__(self) -> str:
        return "<secret>"


@dataclass(frozen=True)
class Credentials:
    """What the operator has. A key that is missing or a placeholder is not in `keys`."""

    keys: Mapping[str, Secret]
    database_url: Secret | None

    def database(self) -> dict[str, str] | None:
        """The URL as libpq's own keywords, for a service file; None means the host's own PostgreSQL."""
        if self.database_url is None:
            return None
        url = urlsplit(self.database_url)
        parts = {
            "host": url.hostname,
            "port": str(url.port or 5432),
            "dbname": unquote(url.path.lstrip("/")) or "postgres",
            "user": unquote(url.username or ""),
            "password": unquote(url.password or ""),
            **dict(parse_qsl(url.query)),
        }
        return {key: value for key, value in parts.items() if value}


def load(environment: Mapping[str, str], dotenv: Path) -> Credentials:
    """Read both sources; the environment wins. Raises BadInput when `dotenv` does not parse or a value is unusable."""
    found = dict(_read(dotenv))
    found.update({key: environment[key] for key in (*KEYS, DATABASE_URL) if environment.get(key)})
    keys = {key: Secret(_clean(key, found[key])) for key in KEYS if found.get(key) and not is_placeholder(found[key])}
    if JWT_SECRET in keys and len(keys[JWT_SECRET]) < MIN_JWT_SECRET:
        raise BadInput(
            f"{JWT_SECRET}: your own value is shorter than {MIN_JWT_SECRET} characters; "
            "use `openssl rand -base64 32`, or leave it out and one is made on the host"
        )
    url = found.get(DATABASE_URL)
    if url and not url.startswith(("postgres://", "postgresql://")):
        raise BadInput(f"{DATABASE_URL}: must start with postgresql://")
    if url and any(character < " " for character in unquote(url)):
        raise BadInput(f"{DATABASE_URL}: holds a line break or control character; paste it again")
    return Credentials(keys, Secret(url) if url else None)


def is_placeholder(value: str) -> bool:
    return value.strip().lower() in PLACEHOLDERS


def _read(dotenv: Path) -> Mapping[str, str]:
    """A bad line is refused by number; python-dotenv would skip it with a warning."""
    if not dotenv.exists():
        return {}
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    try:
        with dotenv.open(encoding="utf-8") as stream:
            bad = [binding.original.line for binding in parse_stream(stream) if binding.error]
        if bad:
            raise BadInput(f"{dotenv}: line {bad[0]} is not KEY=value; mend it or comment it out")
        return {key: value or "" for key, value in dotenv_values(dotenv, interpolate=False).items()}
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{dotenv}: cannot be read: {type(error).__name__}; it must be UTF-8 text") from None


def _clean(key: str, value: str) -> str:
    value = value.strip()
    if any(character < " " or character == "\x7f" for character in value):
        raise BadInput(f"{key}: holds a line break or control character; paste the value again")
    if "'" in value or "${" in value or value.endswith("\\"):
        raise BadInput(f"{key}: holds a quote, ${{ or a final backslash, which no API token has; paste it again")
    return value


def of_operator() -> Credentials:
    """From this process's environment and `.env` in the current folder."""
    return load(os.environ, Path(".env"))
