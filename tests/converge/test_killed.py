"""The client dies in the middle of writing `.env`: the file is the old one or the new one, never anything else."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.converge.operator import INVENTORY, ROOT, Operator
from tests.rehearsal.host import Host, until
from tests.rehearsal.story import without_secrets

pytestmark = pytest.mark.slow

TIMES = 200
DOTENV = "opt/ai-admin/.env"


class Killer:
    def __init__(self, operator: Operator) -> None:
        words = [INVENTORY, "tests/converge/only_dotenv.py", "--limit", operator.host.name, "-y"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.converge.killer", *words],
            cwd=operator.folder,
            env=without_secrets(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, delay: float) -> tuple[float, bool]:
        """Seconds lived, and whether it was killed."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{delay}\n")
        self.process.stdin.flush()
        lived, killed = self.process.stdout.readline().split()
        return float(lived), killed == "1"

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(10)


def ours(host: Host) -> list[int]:
    """The ssh sessions and programs of ours on the host, by their pid on this machine."""
    found = []
    for pid in host.processes():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"sshd-") or b"const [p, i, e]" in command:
            found.append(pid)
    return found


@dataclass
class Tally:
    """What became of the file, run by run; `torn` counts the moments when it was neither old nor new."""

    kept: int = 0
    replaced: int = 0
    torn: int = 0
    cut: int = 0


def kill_again_and_again(host: Host, operator: Operator, times: int) -> Tally:
    """Each run writes a new token and is killed at a random moment; every other time the host's side with it."""
    file = host.root / DOTENV
    token = "token-0000"
    operator.write({"YCLIENTS_PARTNER_TOKEN": token, "YCLIENTS_APP_ID": "12345"})
    killer = Killer(operator)
    before = set(ours(host))
    whole, killed = killer.run(60)
    assert not killed and token in file.read_text()

    dice = random.Random(20261123)  # noqa: S311 -- delays, not secrets
    tally = Tally()
    for number in range(1, times + 1):
        old, new_token = file.read_bytes(), f"token-{number:04}"
        new = old.replace(token.encode(), new_token.encode())
        assert new != old
        operator.write({"YCLIENTS_PARTNER_TOKEN": new_token, "YCLIENTS_APP_ID": "12345"})
        with reading(file) as seen:
            _, killed = killer.run(dice.uniform(0.2 * whole, 1.1 * whole))
            for pid in set(ours(host)) - before if number % 2 else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            until(20, "the host to finish what it began", lambda: set(ours(host)) <= before)
        now = file.read_bytes()
        tally.cut += killed
        tally.torn += bool(seen - {old, new}) or now not in (old, new)
        tally.kept += now == old
        tally.replaced += now == new
        if now not in (old, new):
            file.write_bytes(old)  # go on from a sound file
        token = new_token if now == new else token
    killer.close()
    return tally


@contextmanager
def reading(file: Path) -> Iterator[set[bytes]]:
    """Read the file without pause meanwhile: the set of all its contents that a reader could see."""
    seen: set[bytes] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(file.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield seen
    finally:
        stop.set()
        reader.join()


def test_the_file_is_old_or_new_whenever_the_client_is_killed(leak_host: Host) -> None:
    operator = Operator(leak_host, {})
    tally = kill_again_and_again(leak_host, operator, TIMES)
    assert tally.torn == 0
    assert tally.cut > TIMES / 2, "most clients ended before they were killed"
    assert min(tally.kept, tally.replaced) > TIMES / 20, f"{tally}: the kills missed the write"
    assert (leak_host.root / DOTENV).stat().st_mode & 0o777 == 0o600

    operator.write({"YCLIENTS_PARTNER_TOKEN": "token-last", "YCLIENTS_APP_ID": "12345"})
    assert operator.run("-y", "--data", "settle_time=0").returncode == 0
    left = [*(leak_host.root / "opt/ai-admin").glob(".*ai-admin-deploy*")]
    assert left == [], "a temporary file with a secret was left"


def test_a_write_in_place_is_caught(leak_host: Host) -> None:
    """The guard taken out: the same runs, with a writeWhole that writes half, and then the rest."""
    operator = Operator(leak_host, {})
    (operator.folder / "operations").unlink()
    shutil.copytree(ROOT / "operations", operator.folder / "operations")
    step = operator.folder / "operations/step.js"
    atomic = "fs.renameSync(temporary, file);"
    assert atomic in step.read_text()
    in_place = """const half = content.length >> 1;
    fs.writeFileSync(file, content.subarray(0, half));
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 30);
    fs.appendFileSync(file, content.subarray(half));"""
    step.write_text(step.read_text().replace(atomic, in_place))
    assert kill_again_and_again(leak_host, operator, 20).torn > 0
