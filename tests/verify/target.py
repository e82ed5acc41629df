"""Which host is verified: the deploy's own inventory and group_data, read as plain Python. And how it is read."""

from __future__ import annotations

import os
import runpy
import shlex
import subprocess
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from settings import Settings

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LIMIT = 60  # seconds, for a host that hangs


class NotChecked(Exception):
    """Cannot be judged, because something else is broken, which has a check of its own."""


class Reading(dict[str, str]):
    """name -> what was read. Asking for what could not be read raises NotChecked; `why` is the reason, in one line."""

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
    """A host of the inventory, reached by the machine's own ssh with the inventory's key and known hosts."""

    name: str
    data: dict[str, Any]
    settings: Settings

    def start(self) -> None:
        """Begin to read, on the host and from outside. Who asks for the answers waits for them. Raises BadInput."""
        pool = ThreadPoolExecutor(2)
        self._probe: Future[Reading] = pool.submit(self._read_on_the_host, _database())
        self._outside: Future[Reading] = pool.submit(self._read_from_outside)

    @property
    def probe(self) -> Reading:
        """What probe.sh printed. Empty when the host cannot be reached."""
        return self._probe.result()

    @property
    def outside(self) -> Reading:
        """What outside.py saw."""
        return self._outside.result()

    @cached_property
    def ssh_config(self) -> str:
        """A file for `ssh -F`, in which the host is called `target`."""
        options = {
            "HostName": self.data.get("ssh_hostname", self.name),
            "User": self.data.get("ssh_user"),
            "Port": self.data.get("ssh_port"),
            "IdentityFile": self.data.get("ssh_key"),
            "UserKnownHostsFile": self.data.get("ssh_known_hosts_file"),
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": 10,
            "LogLevel": "ERROR",
        }
        lines = [f"  {key} {value}" for key, value in options.items() if value]
        file = Path(self._folder.name) / "config"
        file.write_text("\n".join(["Host target", *lines, ""]))
        return str(file)

    @cached_property
    def _folder(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="verify-")

    def script(self, name: str, **knobs: str) -> str:
        """A script of this folder, with the knobs set in front of it."""
        settings = self.settings
        values = {
            "APP_DIR": settings.app_dir,
            "API_APP": settings.api_app,
            "API_PORT": str(settings.api_port),
            "DOMAIN": settings.domain,
            "SITE": settings.nginx_site,
            **knobs,
        }
        exports = [f"export {key}={shlex.quote(value)}" for key, value in values.items()]
        return "\n".join([*exports, _text(name)])

    @cached_property
    def host(self) -> Any:
        """testinfra's host, for what is done on request. Each of its commands is an ssh connection."""
        import testinfra

        return testinfra.get_host("ssh://target", ssh_config=self.ssh_config)

    def _read_on_the_host(self, database: dict[str, str]) -> Reading:
        """The script goes by standard input: it may hold the database's password."""
        began = time.time()
        knobs = {"PROBE_JS": _text("probe.js"), "POOL_JS": _text("pool.js"), **database}
        try:
            done = subprocess.run(
                ["ssh", "-F", self.ssh_config, "target", "sh -s"],
                input=self.script("probe.sh", **knobs),
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=LIMIT,
            )
        except subprocess.TimeoutExpired:
            return Reading.failed(f"{self.name} did not answer within {LIMIT} s")
        if done.returncode == 255:
            words = done.stderr.strip().splitlines() or ["no answer"]
            return Reading.failed(f"{self.name} cannot be reached over ssh: {words[-1]}")
        self.span = began, time.time()
        lines = done.stdout.splitlines()
        reading = Reading(line.split("\t", 1) for line in lines if "\t" in line)
        reading.why = " ".join(line for line in lines if line.startswith("probe: "))[:200]
        return reading

    def _read_from_outside(self) -> Reading:
        from tests.verify.outside import look  # requests takes 0.2 s to import: meanwhile ssh is connecting

        return Reading(look(self.settings, self.data.get("ssh_hostname", self.name)))


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


def targets(inventory: Path) -> list[Target]:
    """Every host of an inventory file, with its settings. Raises settings.BadInput."""
    found: dict[str, Target] = {}
    for group, hosts in _public(inventory).items():
        if not isinstance(hosts, list):
            continue
        shared = {**_group_data(ROOT, "all"), **_group_data(inventory.parent, "all")}
        own = {**_group_data(ROOT, group), **_group_data(inventory.parent, group)}
        for host in hosts:
            name, data = (host, {}) if isinstance(host, str) else host
            whole = {**shared, **own, **data}
            found[name] = Target(name, whole, Settings.load(whole))
    return list(found.values())


def _group_data(folder: Path, group: str) -> dict[str, Any]:
    file = folder / "group_data" / f"{group}.py"
    return _public(file) if file.exists() else {}


def _public(file: Path) -> dict[str, Any]:
    return {key: value for key, value in runpy.run_path(str(file)).items() if not key.startswith("_")}
