"""bin/rehearse down leaves nothing of a host on this machine, also after a crash."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.rehearsal.host import HOSTS, Host, until

NAME = "tmp1"
OTHERS = re.compile(rf"(aar-|rehearsal[-_]|rehearsal/hosts/)(?!{NAME})[a-z]")  # hosts of others on this machine


@pytest.fixture
def temporary(conv: Host) -> Iterator[Host]:
    conv.down()  # three hosts at once is all there can be
    host = Host(NAME)
    yield host
    host.down()


def printed_by(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def forwarding() -> list[str]:
    """Of each interface. Those of other hosts may go away meanwhile."""
    found = []
    for path in Path("/proc/sys/net/ipv4/conf").glob("*/forwarding"):
        with suppress(OSError):
            found.append(f"{path} {path.read_text().strip()}")
    return found


def traces() -> dict[str, list[str]]:
    """What a host leaves on a machine, but for what carries the name of another host."""
    seen = {
        "mounts": Path("/proc/mounts").read_text().splitlines(),
        "links": [line.split()[1] for line in printed_by("ip", "-o", "link")],
        "addresses": [" ".join(line.split()[1:4]) for line in printed_by("ip", "-o", "address")],
        "nft tables": printed_by("nft", "list", "tables"),
        "cgroups": [folder for folder, _, _ in os.walk("/sys/fs/cgroup")],
        "nspawn": [str(path) for path in Path("/run/systemd/nspawn/propagate").glob("*")],
        "folders": [str(path) for path in HOSTS.glob("*")],
        "forwarding": forwarding(),
        # a dead child of this very process, not waited for yet, does not count
        "processes": [
            line
            for line in printed_by("ps", "-eo", "args")
            if ("nspawn" in line or "ssh-" in line) and "<defunct>" not in line
        ],
    }
    return {what: sorted(line for line in lines if not OTHERS.search(line)) for what, lines in seen.items()}


@pytest.mark.slow
@pytest.mark.parametrize("crash", [False, True], ids=["down", "down after a crash"])
def test_down_leaves_nothing(temporary: Host, crash: bool) -> None:
    before = traces()
    temporary.up()
    assert temporary.ssh("hostname").stdout
    with_host = traces()
    root = temporary.root.stat()
    lock = Path(f"/run/systemd/nspawn/locks/inode-{root.st_dev}:{root.st_ino}")  # the one trace without a name
    assert lock.exists()
    assert {what for what in before if before[what] != with_host[what]} >= set(before) - {"processes"}
    if crash:
        nspawn = [pid for pid in temporary.processes() if "systemd-nspawn" in _command(pid)]
        assert nspawn
        for pid in nspawn:
            os.kill(pid, signal.SIGKILL)
        until(60, "the end of nspawn", lambda: not any(_command(pid) for pid in nspawn))
    temporary.down()
    assert traces() == before
    assert not lock.exists()
    assert not temporary.is_up


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


@pytest.mark.slow
def test_reset_is_pristine(temporary: Host) -> None:
    temporary.up()
    temporary.ssh("touch /opt/ai-admin/left-over && rm /opt/ai-admin/.env")
    temporary.reset()
    assert temporary.ssh("ls -A /opt/ai-admin | grep -cE '^(left-over|.env)$'").stdout.strip() == "1"
    assert temporary.ssh("test -s /opt/ai-admin/.env", check=False).returncode == 0
