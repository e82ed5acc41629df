"""What a run aims at: a rehearsal host, or many light ones, through a relay that makes them distant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.relay import relay
from tests.rehearsal.host import KEY, Host, until

LIGHT = list(range(2200, 2230))  # ports of the light hosts
LOCKS = "/run/lock /run/ai-admin-deploy:mode=0700"  # file systems that each light host has of its own


@dataclass(frozen=True)
class Place:
    """The host at `round_trip` ms, by its own sshd or those of light hosts; an inventory for each tool in `folder`."""

    host: Host
    round_trip: int
    ports: list[int]
    folder: Path

    @property
    def address(self) -> str:
        return f"127.0.77.{self.round_trip + 1}"

    @property
    def ssh_options(self) -> list[str]:
        options = [
            f"UserKnownHostsFile={self.folder / 'known_hosts'}",
            f"IdentityFile={KEY}",
            "IdentitiesOnly=yes",
            "LogLevel=ERROR",
        ]
        return [word for each in (*options, "StrictHostKeyChecking=yes") for word in ("-o", each)]

    def write(self) -> Place:
        self.folder.mkdir()
        host_key = (self.host.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
        known = [f"{self.address if port == 22 else f'[{self.address}]:{port}'} {host_key}" for port in self.ports]
        (self.folder / "known_hosts").write_text("".join(known))
        ours = {
            "ssh_hostname": self.address,
            "ssh_user": "root",
            "ssh_key": str(KEY),
            "ssh_known_hosts_file": str(self.folder / "known_hosts"),
            "yclients_api": "http://127.0.0.1:9",  # whatever happens, not the real one
            "outbound": ["api.rehearsal.test:8443"],
            "verify_address": self.address,
            "verify_ca": str(self.host.root / "etc/letsencrypt/live/ai-admin.app/fullchain.pem"),
        }
        inventory = [(f"bench{port}", {**ours, "ssh_port": port}) for port in self.ports]
        (self.folder / "inventory.py").write_text(f"hosts = {inventory!r}\n")
        lines = [
            f"bench{port} ansible_host={self.address} ansible_port={port} ansible_user=root" for port in self.ports
        ]
        (self.folder / "hosts.ini").write_text("\n".join([*lines, ""]))
        return self


def cpu_of(host: Host) -> float:
    """CPU seconds that all processes of the host have used since it booted, those that have ended included."""
    for cgroup in host._cgroups():
        with suppress(FileNotFoundError):
            words = (cgroup / "cpu.stat").read_text().split()  # cgroup v2 has it without any controller
            return int(words[words.index("usage_usec") + 1]) / 1e6
    raise SystemExit("bench: cannot measure the host's CPU time: this machine has no cgroup v2")


@contextmanager
def distances(host: Host, round_trips: list[int], folder: Path) -> Iterator[dict[int, Place]]:
    """The host at each of these round trips (ms)."""
    places = {each: Place(host, each, [22], folder / f"{each}ms").write() for each in round_trips}
    with ExitStack() as relays:
        for place in places.values():
            relays.enter_context(
                relay(place.address, [22, 80, 443, *LIGHT], lambda: host.address, place.round_trip / 1000)
            )
        yield places


def light_hosts(host: Host) -> None:
    """An sshd each, on a port of its own, with locks of its own; the rest they share. They end with the host."""
    host.ssh("install -d -m 0700 /run/ai-admin-deploy")  # systemd would make it 0755
    for port in LIGHT:
        sshd = f"/usr/sbin/sshd -D -oPort={port} -oPidFile=none -oUsePAM=no"
        host.ssh(f"systemd-run --quiet --property=TemporaryFileSystem='{LOCKS}' {sshd}")
    listening = f"ss -Hltn4 'sport >= :{LIGHT[0]} and sport <= :{LIGHT[-1]}'"
    until(30, "the light hosts", lambda: len(host.ssh(listening).stdout.splitlines()) == len(LIGHT))
