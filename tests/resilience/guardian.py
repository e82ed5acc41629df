"""`bin/faults --guardian`: a client that dies at each step; how soon the host has put right what it left half done.

Exit codes: 0 within LIMIT everywhere, 1 not.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from remote import services
from tests.rehearsal.host import Host, of_this_run, until
from tests.rehearsal.story import INVENTORY, ROOT, copy_of_repository, tokens, without_secrets
from tests.resilience import page
from tests.resilience.faults import STEPS
from tests.resilience.world import FAST, World

LIMIT = 10  # seconds, where the connection is closed
PATIENCE = 120  # seconds
KINDS = {"before": "before it is sent", "after": "when it is done"}
STEP = '\nfrom pyinfra.operations import server\nserver.shell(name="Wait", commands=["touch /run/here; sleep 600"])\n'

HOW = """
Seconds from the client's death (SIGKILL at this step) until no program of ours runs on the host, and no file is
left that no service has loaded. Silent: every packet to the host is dropped after `.env` was written."""


def unloaded(host: Host) -> list[str]:
    """The files of which our notes say that they were written and that no service has loaded them."""
    notes = [host.root / f"var/lib/ai-admin-deploy/{each}.json" for each in (services.of("ai-admin-api"), "nginx")]
    return [file for note in notes if note.exists() for file in json.loads(note.read_text())["files"]]


def after_death(world: World, is_closed: bool = True) -> float:
    """Seconds from now until no program of ours runs on the host (where the connection is not closed: until none is at
    work; the next one, which got no input, ends later by itself), and nothing is half done."""
    died, is_busy = time.monotonic(), world.busy if is_closed else world.at_work
    until(PATIENCE, "the host to have put it right", lambda: not is_busy())
    taken = time.monotonic() - died
    assert not unloaded(world.host), f"not put right: {unloaded(world.host)}"
    return taken


def killed(world: World, kind: str, step: int, environment: dict[str, str]) -> float:
    """The client is killed there."""
    command = [sys.executable, "-m", "tests.resilience.client", kind, str(step), INVENTORY, "deploy.py"]
    subprocess.run(
        [*command, "--limit", world.host.name, "-y", *FAST],
        cwd=ROOT,
        env={**without_secrets(), **environment},
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    return after_death(world)


@contextmanager
def mute(host: Host) -> Iterator[None]:
    """Nothing that clients send arrives any more at the host, and nothing tells it so. Other hosts are not touched."""
    chain = f"ip {host.table} mute"
    drop = f"add rule {chain} ip daddr {host.address} tcp dport 22 drop"
    subprocess.run(["nft", f"add chain {chain} {{ type filter hook output priority filter; }}; {drop}"], check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "chain", *chain.split()], check=True)


def silent(world: World, runbook: str, environment: dict[str, str]) -> float:
    """The client has written `.env`; then its laptop has no power any more."""
    command = [str(Path(sys.executable).with_name("pyinfra")), INVENTORY, "deploy.py", "--limit", world.host.name, "-y"]
    with copy_of_repository(ROOT, None, runbook) as folder:
        client = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        here = Path(f"/proc/{world.host.init}/root/run/here")
        until(PATIENCE, "the step after .env", here.exists)
        assert unloaded(world.host), "there was nothing to put right"
        with mute(world.host):
            client.kill()
            client.wait()
            taken = after_death(world, is_closed=False)
    world.host.ssh("pkill -f '[s]leep 600'; rm /run/here", check=False)
    return taken


def main() -> int:
    from tests.converge.conftest import only

    host = of_this_run("guard")
    host.reset()
    world = World(host)
    rows = ["| deploy, step | " + " | ".join(KINDS.values()) + " |", "|---|" + "---|" * len(KINDS)]
    worst = 0.0
    for scenario, steps in STEPS.items():
        for step in range(1, steps + 1):
            taken = []
            for kind in KINDS:
                if scenario == "first":
                    host.reset()
                taken.append(killed(world, kind, step, tokens() if scenario == "token" else {}))
            worst = max(worst, *taken)
            rows.append(f"| {scenario}, {step} | " + " | ".join(f"{seconds:.1f}" for seconds in taken) + " |")
            print(rows[-1], flush=True)
        if scenario == "first":
            host.reset()
            assert world.deploy({}).code == 0
    quiet = silent(world, only("Secrets in .env") + STEP, tokens())
    text = f"At worst {worst:.1f} s after a closed connection, {quiet:.1f} s after one that fell silent."
    print(text)
    page.put("The guardian", f"`bin/faults --guardian`: {text}\n{HOW}\n\n" + "\n".join(rows))
    host.down()
    return 0 if worst <= LIMIT else 1
