"""The operator's own secrets. For each key the first source that has it wins:

1. the process's environment;
2. the output of the command that YCLIENTS_SECRETS_COMMAND names, in the environment or in `.env`: `sops -d prod.env`,
   `op inject -i prod.env.tpl`, `pass show ai-admin/env` (no shell; what it prints is dotenv text);
3. a local `.env`.

They leave this machine in one way only: over ssh, on the standard input of a program of ours.
"""

import io
import os
import re
import shlex
import subprocess
import threading
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from operator import itemgetter
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from rules import JWT_SECRET, KEYS, MIN_JWT_SECRET, PUBLIC_DEFAULTS, is_placeholder
from settings import BadInput

HERE = Path(__file__).parent
DATABASE_URL = "DATABASE_URL"
COMMAND = "YCLIENTS_SECRETS_COMMAND"
COMMAND_TIMEOUT = 60  # seconds; it may ask the operator for a passphrase

# What DATABASE_URL may say, as libpq calls it, and the variable that says the same: bin/verify has no service file.
LIBPQ = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "channel_binding": "PGCHANNELBINDING",
    "gssencmode": "PGGSSENCMODE",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "application_name": "PGAPPNAME",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "options": "PGOPTIONS",
}
SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# Of the application's own client (Prisma 6, node-postgres 8, Supabase's dashboard): for its pool, and nothing to psql.
CLIENTS = (
    *("pgbouncer", "connection_limit", "pool_timeout", "socket_timeout", "max_idle_connection_lifetime"),
    *("statement_cache_size", "uselibpqcompat", "supa", "workaround"),
)
# What another client says, in libpq's words.
SAME = {("ssl", "true"): ("sslmode", "require"), ("sslmode", "no-verify"): ("sslmode", "require")}
SAME |= {("schema", "public"): ("", "")}  # which every role finds
POOLER_PORT = "6543"  # where Supabase's poolers pool by transaction

_QUOTES = ('""', "''", "``", "“”", "„“", "«»", "‘’")


class Secret(str):
    """A text that no repr shows, neither its own nor its container's."""

    def __repr__(self) -> str:
        return "<secret>"


@dataclass(frozen=True)
class Credentials:
    """What the operator has, and from where. A key that is missing or a placeholder is not in `keys`."""

    keys: Mapping[str, Secret]
    database_url: Secret | None
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def told(self) -> str:
        """Which keys come from where, in one line; empty where there are none."""
        return "; ".join(
            f"{', '.join(key for key in self.sources if self.sources[key] == source)} from {source}"
            for source in dict.fromkeys(self.sources.values())
        )

    def database(self, ca: str = "") -> dict[str, Secret] | None:
        """The URL as libpq's own keywords; None means the host's own PostgreSQL.

        `ca`: a file on the host; then the server's certificate and name are checked, or as much as the URL wants.
        """
        if self.database_url is None:
            return None
        keywords = _libpq(self.database_url)
        if ca and keywords.get("sslmode") != "verify-ca":
            keywords["sslmode"] = Secret("verify-full")
        return {**keywords, "sslrootcert": Secret(ca)} if ca else keywords

    @property
    def pooled(self) -> bool:
        """Does the URL name a pooler that keeps no session from one transaction to the next?"""
        url = self.database_url
        return url is not None and (_libpq(url)["port"] == POOLER_PORT or _parameters(url).get("pgbouncer") == "true")


_ONE_AT_A_TIME = threading.Lock()  # pyinfra loads a deploy for all hosts side by side


def of_operator() -> Credentials:
    """From the environment and `.env` in this folder, once a run: a passphrase may be asked for."""
    with _ONE_AT_A_TIME:
        return _of_operator()


@cache
def _of_operator() -> Credentials:
    return load(os.environ, HERE / ".env")


def load(environment: Mapping[str, str], dotenv: Path) -> Credentials:
    """Read the sources. Raises BadInput, which names the key or the source and shows no value."""
    local = _read(dotenv)
    _require_known(local, dotenv)
    command = environment.get(COMMAND) or local.get(COMMAND)
    sources = {"your environment": environment, COMMAND: _run(command) if command else {}, dotenv.name: local}
    found, named = {}, {}
    for key in (*KEYS, DATABASE_URL):
        each = ((name, _trimmed(key, values.get(key, ""))) for name, values in sources.items())
        source, value = next(filter(itemgetter(1), each), (dotenv.name, ""))
        if value and is_placeholder(value) and value not in PUBLIC_DEFAULTS:
            _warn(f"{key}: the value in {source} is a placeholder, and counts as missing")
        elif value:
            found[key], named[key] = Secret(value), source
    url = found.pop(DATABASE_URL, None)
    if url:
        _libpq(url)
    for key, value in found.items():
        quoted(key, value)
    secret = found.get(JWT_SECRET)
    if secret and (len(secret) < MIN_JWT_SECRET or secret in PUBLIC_DEFAULTS):
        why = "the application's public default" if secret in PUBLIC_DEFAULTS else f"under {MIN_JWT_SECRET} characters"
        raise BadInput(
            f"{JWT_SECRET}: your own value is {why}; "
            "use `openssl rand -base64 32`, or leave it out and deploy makes one"
        )
    return Credentials(found, url, named)


def quoted(key: str, value: str) -> str:
    """The value as it is written into `.env`, so that dotenv 17 and python-dotenv 1.2 both read it back.

    Neither undoes all that the other escapes, so nothing is escaped: of bare, single and double quotes, the first that
    both take literally. Raises BadInput where none does.
    """
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in value):
        raise BadInput(f"{key}: holds a line break or control character; paste the value again")
    plain = value.isascii() and value and all(character.isalnum() or character in "_.@%+,:/=-" for character in value)
    forms = (
        (value, plain),
        (f"'{value}'", "'" not in value),
        (f'"{value}"', not any(part in value for part in ('"', "\\n", "\\r"))),
        # bare again; dotenv would look for the second backtick in the lines that follow
        (value, value and "#" not in value and value[0] != "`" and value == _strip(value)),
    )
    # dotenv's rules are above; python-dotenv is asked
    for text, dotenv_takes_it in forms if "${" not in value else ():
        if dotenv_takes_it and dotenv_values(stream=io.StringIO(f"{key}={text}\n")) == {key: value}:
            return text
    raise BadInput(
        f"{key}: contains ${{, or quotes together with # or backslashes, which no .env can hold safely; "
        "choose another value"
    )


def _strip(value: str) -> str:
    """Without the whitespace at both ends, also what only JavaScript or nobody counts as such."""
    return value.strip().strip("\ufeff\u200b").strip()


def _trimmed(key: str, value: str) -> str:
    trimmed = _strip(value)
    while len(trimmed) > 1 and trimmed[0] + trimmed[-1] in _QUOTES:
        trimmed = _strip(trimmed[1:-1])
    if trimmed != value:
        _warn(f"{key}: your value has whitespace or quotes around it; they are removed")
    return trimmed


def _warn(text: str) -> None:
    from pyinfra import logger  # verification reads credentials too, and has no use for pyinfra

    logger.warning(text)


def _read(dotenv: Path) -> Mapping[str, str]:
    try:
        text = dotenv.read_text(encoding="utf-8")  # once: it may be a pipe
        mode = dotenv.stat().st_mode
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{dotenv}: cannot be read: {type(error).__name__}; it must be UTF-8 text") from None
    if mode & 0o066:
        _warn(f"{dotenv}: other users of this machine can read it: chmod 600 {dotenv}")
    return _parsed(text, str(dotenv))


def _require_known(local: Mapping[str, str], dotenv: Path) -> None:
    """Raises BadInput for a key of ours that is misspelt: it would look as if the token had not come."""
    known = {key.lower(): key for key in (*KEYS, DATABASE_URL, COMMAND)}
    for key in local.keys() - known.values():
        for close in get_close_matches(key.lower(), known, 1, 0.8):
            if known[close] not in local:
                raise BadInput(f"{dotenv}: nothing reads {key}; did you mean {known[close]}?")


def _run(command: str) -> Mapping[str, str]:
    """What the command prints. Its input and its messages are the operator's terminal: it may ask for a passphrase."""
    why = ""
    try:
        done = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, encoding="utf-8", timeout=COMMAND_TIMEOUT)
        if done.returncode:
            why = f"failed with exit code {done.returncode}; run it by hand to see why"
    except subprocess.TimeoutExpired:
        why = f"did not end within {COMMAND_TIMEOUT} s"
    except OSError as error:
        why = f"cannot be run ({error.strerror}); is it installed?"
    except (ValueError, IndexError):
        why = "is not a command line, or its output is not UTF-8 text"
    if why:
        raise BadInput(f"{COMMAND}: the command {why}")
    values = _parsed(done.stdout, f"{COMMAND}: the command's output")
    if not values.keys() & {*KEYS, DATABASE_URL}:
        raise BadInput(f"{COMMAND}: the command prints none of {', '.join(KEYS)}; it must print KEY=value lines")
    return values


def _parsed(text: str, source: str) -> dict[str, str]:
    """A bad line is refused by number; python-dotenv would skip it with a warning."""
    values = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key and binding.value is None):  # a line that is only a token, say
            whole = binding.original.string  # python-dotenv counts from the empty lines before it
            line = binding.original.line + whole[: len(whole) - len(whole.lstrip())].count("\n")
            is_open = re.search(r"""=\s*(['"])(?!.*\1)""", whole) is not None
            why = "has a quote that is not closed" if is_open else "is not KEY=value"
            raise BadInput(f"{source}: line {line} {why}; fix it or comment it out")
        if binding.key:
            values[binding.key] = binding.value or ""
    return values


def _libpq(url: str) -> dict[str, Secret]:
    """Raises BadInput for what is no such URL; Python's own message would show a piece of the password."""
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in ("postgres", "postgresql") or parts.fragment or "@" in parts.path + parts.query:
        raise BadInput(
            f"{DATABASE_URL}: is not postgresql://user:password@host:port/database; "
            "in the password, write / as %2F, ? as %3F, # as %23, @ as %40, % as %25"
        )
    if any(character < " " for character in unquote(url)):
        raise BadInput(f"{DATABASE_URL}: holds a line break or control character; paste it again")
    keywords = {
        "host": parts.hostname,
        "port": str(port),
        "dbname": unquote(parts.path.lstrip("/")) or "postgres",
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
    }
    for each in _parameters(url).items():
        name, value = SAME.get(each, each)
        if each in SAME:  # libpq's own word for it may say more: sslmode=verify-full
            keywords.setdefault(name, value)
        elif name in LIBPQ:
            keywords[name] = value
        elif name and name not in CLIENTS:
            raise BadInput(f"{DATABASE_URL}: psql has no parameter {name}: {_instead(name)}")
    if keywords.get("sslmode", "prefer") not in SSLMODES:
        raise BadInput(f"{DATABASE_URL}: sslmode must be one of {', '.join(SSLMODES)}")
    for name in ("sslrootcert", "sslcert", "sslkey"):
        if not (keywords.get(name) or "/").startswith("/") and keywords[name] != "system":
            raise BadInput(f"{DATABASE_URL}: {name} must be an absolute path on the server")
    return {key: Secret(value) for key, value in keywords.items() if value}


def _parameters(url: str) -> dict[str, str]:
    """After the question mark. A + is a +, as libpq has it."""
    return dict(parse_qsl(urlsplit(url).query.replace("+", "%2B")))


def _instead(name: str) -> str:
    if name == "schema":
        return "leave it out, and `ALTER ROLE … SET search_path` to that schema"
    if name.startswith("ssl"):
        return "write sslmode=require, or sslmode=verify-full with a CA's file (database_ca)"
    return "leave it out"
