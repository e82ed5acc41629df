"""Which hosts are verified, and how a script is run on them."""

from __future__ import annotations

import binascii
import json
import os
import shlex
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import contract
import rules
from contract import Contract
from settings import BadInput, Settings

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LIMIT = 60  # seconds, for a host that hangs


class NotChecked(Exception):
    """This cannot be judged, because something else is broken, which has a check of its own."""


class Reading(dict[str, str]):
    """name -> what was read. A name that could not be read raises NotChecked; `why` is the reason, in one line."""

    why = ""

    def __missing__(self, name: str) -> str:
        raise NotChecked(f"{name} could not be read. {self.why}")

    @classmethod
    def failed(cls, why: str) -> Reading:
        reading = cls()
        reading.why = why
        return reading


@dataclass(eq=False)
class Target:
    """A host of the inventory. `command` starts a shell there, which reads a script on standard input after
    `preamble`. `address` is empty for this machine itself (@local)."""

    name: str
    settings: Settings
    address: str
    command: list[str]
    preamble: str = field(repr=False)  # may hold sudo's password

    def start(self) -> None:
        """Begin to read on the host. Whoever asks for `probe` waits for it. Raises BadInput."""
        self._database = _database()
        self._probe: Future[Reading] = ThreadPoolExecutor(1).submit(self._read_on_the_host)
        self._entry: Future[str] = ThreadPoolExecutor(1).submit(self._try_the_entry)

    def start_outside(self, look: Callable[[Settings, str], dict[str, str]]) -> None:
        """Begin to read from outside. Whoever asks for `outside` waits for it."""
        pool = ThreadPoolExecutor(1)
        self._outside: Future[Reading] = pool.submit(lambda: Reading(look(self.settings, self.address)))

    @property
    def probe(self) -> Reading:
        """What probe.sh printed. Empty when no shell could be started on the host."""
        return self._probe.result()

    @cached_property
    def contract(self) -> Contract:
        """What the application's source needs. Raises NotChecked."""
        sources: dict[str, str] = json.loads(zlib.decompress(binascii.a2b_base64(self.probe["source"])))
        if missing := {rules.ROUTES, rules.SESSION_POOL} - set(sources):
            raise NotChecked(f"{', '.join(sorted(missing))} is not in the application's folder")
        return contract.read({file: content.encode() for file, content in sources.items()})

    @property
    def entry(self) -> str:
        """What psql complains of when it tries the entry route's insert, which entry.sql rolls back."""
        return self._entry.result()

    @property
    def psql(self) -> str:
        """The command that reaches the database, for a remedy."""
        return self._database["PSQL"] if len(self._database) == 1 else 'psql "$DATABASE_URL"'

    @property
    def outside(self) -> Reading:
        """What outside.py saw."""
        return self._outside.result()

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script on the host. It goes by standard input: it may hold the database's password. Raises
        TimeoutExpired."""
        return subprocess.run(
            self.command,
            input=self.preamble + script,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=LIMIT,
        )

    @cached_property
    def host(self) -> Any:
        """testinfra's host, for the checks that are only made on request. Each of its commands is a connection."""
        from testinfra.host import Host

        from tests.verify.backend import Backend

        return Host(Backend(self.name, self.run))

    def script(self, name: str, **variables: str) -> str:
        """A script of this folder, preceded by the settings and rules that it uses."""
        settings = self.settings
        values = {
            "APP_DIR": settings.app_dir,
            "API_APP": settings.api_app,
            "API_PORT": str(settings.api_port),
            "DOMAIN": settings.domain,
            "SITE": settings.nginx_site,
            "WANTED_COLUMNS": " ".join(rules.COLUMNS),
            "MIGRATION": rules.MIGRATION,
            "MIGRATION_COPY": rules.MIGRATION_COPY.read_text(encoding="utf-8"),
            "RULES": json.dumps(_rules(settings)),
            **variables,
        }
        exports = [f"export {key}={shlex.quote(value)}" for key, value in values.items()]
        return "\n".join([*exports, _text(name)])

    def _read_on_the_host(self) -> Reading:
        began = time.time()
        programs = {"PROBE_JS": _text("probe.js"), "POOL_JS": _text("pool.js")}
        try:
            done = self.run(self.script("probe.sh", **programs, **self._database))
        except subprocess.TimeoutExpired:
            return Reading.failed(f"{self.name} did not answer within {LIMIT} s")
        self.span = began, time.time()
        lines = done.stdout.splitlines()
        reading = Reading(line.split("\t", 1) for line in lines if "\t" in line)
        if not reading:
            last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
            unreachable = self.address and done.returncode == 255
            what = "cannot be reached over ssh" if unreachable else "cannot run the script that reads it"
            return Reading.failed(f"{self.name} {what}: {last}")
        reading.why = " ".join(line for line in lines if line.startswith("probe: "))[:200]
        return reading

    def _try_the_entry(self) -> str:
        upsert = self.contract.upsert
        if upsert is None:
            return ""
        names = {"columns": upsert.columns, "key": upsert.key, "role": [self.probe["database.role"]]}
        values = " ".join(f"-v {name}={shlex.quote(','.join(each))}" for name, each in names.items())
        exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in self._database.items())
        psql = "cd / && LC_ALL=C.UTF-8 $PSQL -Xq -v ON_ERROR_STOP=1 -v VERBOSITY=verbose"
        done = self.run(f"{exports}{psql} {values} -f - 2>&1 <<'SQL'\n{_text('entry.sql')}SQL\necho tried\n")
        complaints, tried, _ = done.stdout.partition("tried\n")
        return complaints if tried else done.stderr or "no answer"


def _rules(settings: Settings) -> dict[str, Any]:
    """What probe.js and pool.js look for."""
    return {
        "keys": rules.KEYS,
        "secret": rules.JWT_SECRET,
        "placeholder": rules.PLACEHOLDER,
        "publicDefaults": rules.PUBLIC_DEFAULTS,
        "packages": list(settings.packages),
        "healthCheck": rules.HEALTH_CHECK,
        "mention": rules.MENTION,
        "sessionPool": rules.SESSION_POOL,
        "poolClass": rules.POOL_CLASS,
        "methods": rules.METHODS,
    }


def _database() -> dict[str, str]:
    """How the probe asks the database: the operator's DATABASE_URL where one is set, else the host's own PostgreSQL."""
    dotenv = Path(".env")
    sources = [*os.environ, dotenv.read_text(encoding="utf-8", errors="replace") if dotenv.exists() else ""]
    if any(word in source for source in sources for word in ("DATABASE_URL", "YCLIENTS_SECRETS_COMMAND")):
        from credentials import of_operator

        keywords = of_operator().database()
        if keywords is not None:
            names = {"dbname": "database"}
            variables = {f"PG{names.get(key, key).upper()}": value for key, value in keywords.items()}
            return {"PSQL": "psql", **variables}
    return {"PSQL": "runuser -u postgres -- psql -d postgres"}


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def targets(inventory: str, limits: list[str]) -> list[Target]:
    """The hosts of an inventory, as pyinfra reads it: see hosts.py. Raises BadInput."""
    command = [sys.executable, "-m", "tests.verify.hosts", inventory, *limits]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode:
        raise BadInput(f"{inventory} cannot be read; see above")
    found = json.loads(done.stdout)
    if isinstance(found, str):
        raise BadInput(found)
    if not found:
        raise BadInput(f"{inventory} has no host {'that matches ' + ', '.join(limits) if limits else 'at all'}")
    return [Target(**{**each, "settings": Settings(**each["settings"])}) for each in found]
