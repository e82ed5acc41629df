"""The rehearsal hosts that are up, as pyinfra sees any other host."""

from tests.rehearsal.host import KEY, known

rehearsal = [
    (
        host.name,
        {
            "ssh_hostname": host.address,
            "ssh_user": "root",
            "ssh_key": str(KEY),
            "ssh_known_hosts_file": str(host.folder / "known_hosts"),
            "ssh_strict_host_key_checking": "yes",
            "outbound": ["api.rehearsal.test:8443"],  # see provision.sh: no real one is ever asked
            # no DNS knows it, and its certificate is its own
            "verify_address": host.address,
            "verify_ca": str(host.root / "etc/letsencrypt/live/ai-admin.app/fullchain.pem"),
        },
    )
    for host in known()
    if host.is_up
]

if not rehearsal:
    raise SystemExit("no rehearsal host is up; start one: bin/rehearse up")
