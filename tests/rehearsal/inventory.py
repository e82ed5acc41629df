"""The rehearsal hosts that are up, as pyinfra sees any other host."""

from contextlib import suppress
from typing import Any

from tests.rehearsal.host import KEY, Host, known


def _data(host: Host) -> dict[str, Any]:
    return {
        "ssh_hostname": host.address,
        "ssh_user": "root",
        "ssh_key": str(KEY),
        "ssh_known_hosts_file": str(host.folder / "known_hosts"),
        "ssh_strict_host_key_checking": "yes",
        "outbound": ["api.rehearsal.test:8443"],  # see provision.sh: no real one is ever asked
        # no DNS knows it, and its certificate is its own
        "verify_address": host.address,
        "verify_ca": str(host.root / "etc/letsencrypt/live/ai-admin.app/fullchain.pem"),
    }


rehearsal: list[tuple[str, dict[str, Any]]] = []
for _host in known():
    with suppress(FileNotFoundError):  # another run is taking it down
        if _host.is_up:
            rehearsal.append((_host.name, _data(_host)))

if not rehearsal:
    raise SystemExit("no rehearsal host is up; start one: bin/rehearse up")
