"""Which host is verified: the deploy's own inventory and group_data, read as plain Python."""

from __future__ import annotations

import runpy
import shlex
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import testinfra

from settings import Settings

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@dataclass(frozen=True)
class Target:
    """A host of the inventory, reached by the machine's own ssh with the inventory's key and known hosts."""

    name: str
    data: dict[str, Any]
    settings: Settings

    @cached_property
    def host(self) -> Any:
        """testinfra's host. One connection is kept for all commands."""
        folder = tempfile.mkdtemp(prefix="verify-")  # short: a socket's path has 100 characters
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
            "ControlMaster": "auto",
            "ControlPath": f"{folder}/%C",
            "ControlPersist": 20,
        }
        lines = [f"  {key} {value}" for key, value in options.items() if value]
        config = Path(folder) / "config"
        config.write_text("\n".join(["Host target", *lines, ""]))
        return testinfra.get_host("ssh://target", ssh_config=str(config))

    @cached_property
    def probe(self) -> dict[str, str]:
        """What probe.sh printed. Raises ConnectionError, in one line, when the host cannot be reached."""
        knobs = {
            "APP_DIR": self.settings.app_dir,
            "API_APP": self.settings.api_app,
            "API_PORT": str(self.settings.api_port),
            "DOMAIN": self.settings.domain,
            "SITE": self.settings.nginx_site,
        }
        assignments = "\n".join(f"{key}={shlex.quote(value)}" for key, value in knobs.items())
        script = f"{assignments}\n{(HERE / 'probe.sh').read_text(encoding='utf-8')}"
        done = self.host.run(script)
        if done.rc == 255:
            raise ConnectionError(f"{self.name} cannot be reached: {done.stderr.strip().splitlines()[-1]}")
        return dict(line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)


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
