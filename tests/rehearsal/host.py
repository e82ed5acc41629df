"""A disposable Debian 13 host: systemd-nspawn on an overlay, its own network, nothing left behind.

Every trace of a host carries its name: the folder HOSTS/<name>, the cgroup `ai-admin-rehearsal-<name>`, the
interface `ve-aar-<name>` and an nft table of the cgroup's name, with underscores. So `down` finds all of it without
remembering anything, also after a crash.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.rehearsal import image
from tests.rehearsal.progress import step

STATE = Path("/var/lib/ai-admin-rehearsal")
HOSTS = STATE / "hosts"
KEY = STATE / "id_ed25519"
FORWARDING = STATE / "uplink-forwarding"
NETWORK = "198.18.77"  # RFC 2544: for tests of network devices, routed nowhere
PROGRAMS = Path(__file__).with_name("programs.txt")  # what the hosts need on this machine; bin/ reads it too
FIREWALL = "firewall"  # a chain of the host's nft table
SLOTS = range(12)
BOOT_SECONDS = 300  # it takes 4; a machine that is busy with other things, longer
COMMAND_SECONDS = 300
NAME = re.compile(r"[a-z][a-z0-9]{0,7}")  # an interface name holds 15 characters


@dataclass(frozen=True)
class Host:
    """One rehearsal host. `slot` picks its /30 network: .1 is this machine, .2 the host.

    `bare`: a Debian of this suite ("bookworm") with nothing on it, in the place of the host with the application.
    """

    name: str
    bare: str = ""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise SystemExit(f"rehearse: a host's name is 1 to 8 of a-z and 0-9, not {self.name!r}")

    @property
    def folder(self) -> Path:
        return HOSTS / self.name

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def label(self) -> str:
        return f"ai-admin-rehearsal-{self.name}"

    @property
    def table(self) -> str:
        return self.label.replace("-", "_")

    @property
    def interface(self) -> str:
        return f"ve-aar-{self.name}"

    @property
    def slot(self) -> int:
        return int((self.folder / "slot").read_text())

    @property
    def gateway(self) -> str:
        return f"{NETWORK}.{4 * self.slot + 1}"

    @property
    def address(self) -> str:
        return f"{NETWORK}.{4 * self.slot + 2}"

    @property
    def six(self) -> str:
        """The first half of the IPv6 addresses that a test may give this host, and no other has."""
        return f"fd77:0:0:{self.slot + 1:x}"

    @property
    def ssh_config(self) -> Path:
        return self.folder / "ssh_config"

    def typed(self, command: str) -> str:
        """What a person types for this host."""
        return f"bin/rehearse {'' if self.name == 'main' else f'-n {self.name} '}{command}"

    @property
    def is_up(self) -> bool:
        return bool(self.processes())

    @property
    def init(self) -> int:
        """The pid, on this machine, of the host's systemd."""
        for pid in self.processes():
            try:
                inner = Path(f"/proc/{pid}/status").read_text().split("NSpid:")[1].split("\n")[0].split()
            except (OSError, IndexError):
                continue
            if len(inner) > 1 and inner[-1] == "1":
                return pid
        raise RuntimeError(f"{self.name} is not up")

    # --- life

    def up(self) -> None:
        """Boot it, unless it runs already."""
        require_machine()
        with _locked():
            if self.is_up:
                return
            self._clean()
            lower = image.bare(self.bare) if self.bare else image.layers()
            self._claim_slot()
            try:
                with step(f"boot {self.name} ({self.address})"):
                    self._prepare(lower)
                    self._boot()
                    self._connect_network()
                    self._wait_until_ready()
            except BaseException:
                self._clean()
                raise

    def down(self) -> None:
        """End it and remove every trace of it. Says nothing when there is none."""
        require_machine()
        with _locked():
            self._clean()

    def reset(self) -> None:
        """Back to the pristine state."""
        self.down()
        self.up()

    def power_cycle(self) -> None:
        """Cut its power and boot it again: what was not on the disk is lost."""
        with _locked():
            self._kill()
            with step(f"boot {self.name} again"):
                self._boot()
                self._connect_network()
                until(BOOT_SECONDS, "ssh", lambda: self.ssh("true", check=False).returncode == 0)
                self.ssh("systemctl is-system-running --wait", check=False)

    def ssh(self, *command: str, check: bool = True, **kwargs: object) -> subprocess.CompletedProcess[str]:
        """Run a command over ssh; output is captured as text. One that hangs is an error, not a hanging test."""
        done = subprocess.run(
            [*self.ssh_command(), *command],
            capture_output=True,
            text=True,
            # subprocess.run has an overload for each kind of keyword; a dict of any of them fits none
            **{"timeout": COMMAND_SECONDS, **kwargs},  # type: ignore[call-overload]
        )
        assert isinstance(done, subprocess.CompletedProcess)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)[:200]} -> {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def ssh_command(self) -> list[str]:
        return ["ssh", "-F", str(self.ssh_config), self.name]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Nothing on the host goes on until the block ends. Its processes notice nothing but the clock."""
        group = next(path for path in self._cgroups() if (path / "cgroup.freeze").exists())
        switch, state = group / "cgroup.freeze", group / "cgroup.events"
        try:
            switch.write_text("1")
            until(COMMAND_SECONDS, "the host to stand still", lambda: "frozen 1" in state.read_text())
            yield
        finally:
            switch.write_text("0")

    # --- steps of up

    def _claim_slot(self) -> None:
        taken = {host.slot for host in known() if host.name != self.name}
        free = [slot for slot in SLOTS if slot not in taken]
        if not free:
            names = ", ".join(host.name for host in known())
            raise SystemExit(f"rehearse: {len(SLOTS)} hosts are up ({names}); end one: bin/rehearse -n NAME down")
        self.folder.mkdir(parents=True)
        (self.folder / "slot").write_text(str(free[0]))

    def _prepare(self, lower: list[Path]) -> None:
        upper, work = self.folder / "upper", self.folder / "work"
        for folder in (upper, work, self.root):
            folder.mkdir()
        image.mount_overlay(self.root, lower, upper, work)
        if not KEY.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(KEY)], check=True)
        _write(self.root / "root/.ssh/authorized_keys", KEY.with_suffix(".pub").read_text(), 0o600)
        _write(
            self.root / "etc/systemd/network/10-rehearsal.network",
            f"[Match]\nName=host0\n[Network]\nAddress={self.address}/30\nGateway={self.gateway}\n"
            "LinkLocalAddressing=no\nIPv6AcceptRA=no\n",
        )
        host_key = (self.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
        _write(self.folder / "known_hosts", f"{self.address} {host_key}")
        options = {
            "HostName": self.address,
            "User": "root",
            "IdentityFile": KEY,
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.folder / "known_hosts",
            "StrictHostKeyChecking": "yes",
            "LogLevel": "ERROR",
            "ControlMaster": "auto",
            "ControlPath": self.folder / "ssh-%C",
            "ControlPersist": "60",
        }
        lines = [f"  {key} {value}" for key, value in options.items()]
        _write(self.ssh_config, "\n".join([f"Host {self.name}", *lines, ""]))

    def _boot(self) -> None:
        for cgroup in self._cgroups():
            cgroup.mkdir(exist_ok=True)
        enter = "".join(f"echo $$ > {cgroup}/cgroup.procs; " for cgroup in self._cgroups())
        nspawn = (
            f"systemd-nspawn --quiet --register=no --keep-unit --boot --machine=aar-{self.name} "
            f"--directory={self.root} --network-veth --resolv-conf=copy-host --timezone=off "
            "--link-journal=no --console=passive"
        )
        with (self.folder / "console.log").open("w") as log:
            subprocess.Popen(
                ["sh", "-c", f"{enter} exec {nspawn}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _connect_network(self) -> None:
        """Address and masquerading, so that `npm install` on the host reaches what this machine reaches."""
        until(BOOT_SECONDS, f"interface {self.interface}", lambda: self._ip("link", "show", self.interface))
        self._ip("address", "add", f"{self.gateway}/30", "dev", self.interface)
        self._ip("link", "set", self.interface, "up")
        subprocess.run(
            ["nft", "-f", "-"],
            input=f"""
                table ip {self.table} {{
                    chain postrouting {{
                        type nat hook postrouting priority srcnat;
                        ip saddr {self.address} oifname != "{self.interface}" masquerade
                    }}
                    chain {FIREWALL} {{  # as a provider's: the API listens on all addresses and must not be reached
                        type filter hook output priority filter;
                        ip daddr {self.address} tcp dport 3000 drop
                    }}
                }}""",
            text=True,
            check=True,
        )
        _forward(self.interface, True)
        uplink = _uplink()
        if uplink and not FORWARDING.exists():
            FORWARDING.write_text(f"{uplink} {_forwards(uplink)}")
            _forward(uplink, True)

    def _ip(self, *words: str) -> bool:
        return subprocess.run(["ip", *words], capture_output=True).returncode == 0

    def _wait_until_ready(self) -> None:
        """Ready is: systemd has finished, and the application answers."""
        until(BOOT_SECONDS, "ssh", lambda: self.ssh("true", check=False).returncode == 0)
        done = self.ssh("systemctl is-system-running --wait", check=False)
        if done.stdout.strip() != "running":
            failed = self.ssh("systemctl --failed --no-legend", check=False).stdout
            raise SystemExit(f"rehearse: {self.name} booted {done.stdout.strip()}: {failed.strip()}")
        if self.bare:
            return
        answers = "curl -sf -o /dev/null localhost:3000/health"
        until(BOOT_SECONDS, "the application", lambda: self.ssh(answers, check=False).returncode == 0)
        # As it was found: the running process had loaded socket.io before it went missing from the disk.
        # A restart that comes before the package is back takes the site down.
        self.ssh("rm -r /opt/ai-admin/node_modules/socket.io")

    # --- steps of down

    def _kill(self) -> None:
        """End all of it at once; the disk stays mounted."""
        if self.ssh_config.exists():
            subprocess.run(["ssh", "-F", str(self.ssh_config), "-O", "exit", self.name], capture_output=True)
        deadline = time.monotonic() + 60
        while pids := self.processes():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise SystemExit(f"rehearse: processes of {self.name} do not end: {pids}")
            time.sleep(0.02)
        for cgroup in self._cgroups():
            for folder, _, _ in os.walk(cgroup, topdown=False):
                Path(folder).rmdir()
        self._ip("link", "delete", self.interface)
        subprocess.run(["nft", "delete", "table", "ip", self.table], capture_output=True)

    def _clean(self) -> None:
        self._kill()
        image.unmount(self.root)
        shutil.rmtree(f"/run/systemd/nspawn/propagate/aar-{self.name}", ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        if not known() and FORWARDING.exists():
            uplink, old = FORWARDING.read_text().split()
            _forward(uplink, old == "1")
            FORWARDING.unlink()

    def _cgroups(self) -> list[Path]:
        """Its folder in each hierarchy systemd uses: v2, and v1's name=systemd where the machine is hybrid."""
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        return [
            Path(mount[1]) / self.label
            for mount in mounts
            if mount[2] == "cgroup2" or (mount[2] == "cgroup" and "name=systemd" in mount[3])
        ]

    def processes(self) -> list[int]:
        """The pids, on this machine, of all that runs on the host."""
        pids: set[int] = set()
        for cgroup in self._cgroups():
            for folder, _, _ in os.walk(cgroup):  # which passes over what goes away meanwhile, as rglob does not
                with suppress(OSError):
                    pids.update(int(pid) for pid in (Path(folder) / "cgroup.procs").read_text().split())
        return sorted(pids - {0})


def of_this_run(name: str, bare: str = "") -> Host:
    """A host of the tests. `HOSTS` in the environment keeps apart those of runs that go on at the same time."""
    return Host(os.environ.get("HOSTS", "") + name, bare)


def known() -> list[Host]:
    """Every host that has a folder, running or not, by slot; none that another run is making or taking down."""
    found = {}
    for path in HOSTS.glob("*/slot"):
        with suppress(FileNotFoundError, ValueError):
            found[int(path.read_text())] = Host(path.parent.name)
    return [found[slot] for slot in sorted(found)]


def require_machine() -> None:
    """Refuse a machine that cannot run the hosts, naming what is missing."""
    if os.uname().sysname != "Linux":
        raise SystemExit("rehearse: needs Linux (namespaces); run it on a Debian machine")
    if os.geteuid() != 0:
        raise SystemExit("rehearse: needs root (mounts, namespaces): sudo bin/rehearse …")
    if missing := [tool for tool in (*PROGRAMS.read_text().split(), "ssh") if not shutil.which(tool)]:
        raise SystemExit(f"rehearse: missing {', '.join(missing)}; bin/rehearse installs them")


def until(seconds: float, what: str, ready: object) -> None:
    """Poll `ready` until it is true; past `seconds` say what was waited for."""
    assert callable(ready)
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit(f"rehearse: waited {seconds:.0f} s for {what} in vain")
        time.sleep(0.05)


@contextmanager
def _locked() -> Iterator[None]:
    """One up or down at a time: slots, image builds and the uplink's setting are shared."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _uplink() -> str | None:
    """The interface of the default route, if there is one."""
    words = subprocess.run(["ip", "route", "show", "default"], capture_output=True, text=True).stdout.split()
    return words[words.index("dev") + 1] if "dev" in words else None


def _forwards(interface: str) -> str:
    return Path(f"/proc/sys/net/ipv4/conf/{interface}/forwarding").read_text().strip()


def _forward(interface: str, on: bool) -> None:
    Path(f"/proc/sys/net/ipv4/conf/{interface}/forwarding").write_text("1" if on else "0")
