"""A run on a real terminal: Enter, another key, Ctrl-C at the prompt and in a step. 0 means converged, nothing else."""

from __future__ import annotations

import os
import pty
import select
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.converge.conftest import owned
from tests.rehearsal.host import Host
from tests.rehearsal.story import EVERYTHING, INVENTORY, PYINFRA, ROOT, copy_of_repository, deploy, without_secrets

pytestmark = pytest.mark.slow
CTRL_C, ENTER = b"\x03", b"\r"
PID = "cat /root/.pm2/pids/ai-admin-api-0.pid"
GONE = "while pgrep -f '[#] ai-admin-deploy' >/dev/null; do sleep 0.2; done"  # the host's half of a run
LIMIT = 90  # seconds for what takes a few


class Terminal:
    """pyinfra as the only program of a terminal of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(PYINFRA, [PYINFRA, *words], without_secrets())
        self.printed = b""
        self.has_ended = False

    def until(self, happened: Callable[[], object]) -> None:
        end = time.monotonic() + LIMIT
        while not happened():
            assert time.monotonic() < end, self.printed.decode(errors="replace")
            if select.select([self.descriptor], [], [], 0.1)[0]:
                self._read()

    def says(self, text: str) -> None:
        self.until(lambda: text.encode() in self.printed)

    def press(self, keys: bytes) -> None:
        os.write(self.descriptor, keys)

    def end(self) -> int:
        """The exit code."""
        self.until(lambda: self.has_ended)
        os.close(self.descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self) -> None:
        try:
            text = os.read(self.descriptor, 65536)
        except OSError:  # it has ended
            text = b""
        self.printed += text
        self.has_ended = not text


@contextmanager
def running(host: Host, *words: str) -> Iterator[Terminal]:
    with copy_of_repository(ROOT, None, None) as folder:
        yield Terminal(folder, INVENTORY, "deploy.py", "--limit", host.name, "--data", "settle_time=0", *words)


def test_ctrl_c_at_a_password_leaves_a_terminal_that_shows_what_is_typed(tmp_path: Path) -> None:
    """A host that asks for nothing: the inventory is where pyinfra first waits for us."""
    (tmp_path / "asks.py").write_text("from getpass import getpass\ngetpass()\nweb = []\n")
    with copy_of_repository(ROOT, None, None) as folder:
        terminal = Terminal(folder, str(tmp_path / "asks.py"), "deploy.py")
        terminal.says("Password:")
        assert not termios.tcgetattr(terminal.descriptor)[3] & termios.ECHO
        terminal.press(CTRL_C)
        terminal.until(lambda: termios.tcgetattr(terminal.descriptor)[3] & termios.ECHO)
        assert terminal.end() == 130


@pytest.mark.parametrize("keys", [CTRL_C, b"n\r", b"\x04"], ids=["Ctrl-C", "n", "Ctrl-D"])
def test_no_at_the_prompt(host: Host, keys: bytes) -> None:
    before = owned(host)
    with running(host) as terminal:
        terminal.says("Press enter to execute")
        terminal.press(keys)
        assert terminal.end() == 130
    assert b"nothing was changed" in terminal.printed and b"Traceback" not in terminal.printed
    assert owned(host) == before


def test_a_host_that_changed_at_the_prompt_is_planned_anew(host: Host) -> None:
    with running(host) as terminal:
        terminal.says("Press enter to execute")
        host.ssh("echo '// theirs' >> /opt/ai-admin/src/api/routes/yclients-marketplace.js")
        terminal.press(ENTER)
        terminal.says(f"{host.name}: changed since this plan was made. Nothing was done.")
        terminal.until(lambda: terminal.printed.count(b"Press enter to execute") == 2)
        terminal.press(CTRL_C)
        assert terminal.end() == 130
    assert deploy(host, "--dry").changed == EVERYTHING, "nothing was done"
    host.ssh("sed -i '$d' /opt/ai-admin/src/api/routes/yclients-marketplace.js")


def test_ctrl_c_in_npm_then_in_the_restart_then_enter(host: Host) -> None:
    """Twice each time, as people do; what the run began ends on the host, and the next one does the rest."""
    with running(host, "-y") as terminal:
        terminal.until(lambda: host.ssh("pgrep -f '[n]pm.* install'", check=False).stdout)
        terminal.press(2 * CTRL_C)
        assert terminal.end() == 130
    assert b"run again for the rest" in terminal.printed and b"Traceback" not in terminal.printed
    host.ssh(GONE)
    pid = host.ssh(PID, check=False).stdout
    with running(host, "-y", "--data", "settle_time=20") as terminal:
        terminal.until(lambda: host.ssh(PID, check=False).stdout not in (pid, ""))
        terminal.press(2 * CTRL_C)
        assert terminal.end() == 130
    assert b"run again for the rest" in terminal.printed and b"Traceback" not in terminal.printed
    host.ssh(GONE)
    with running(host) as terminal:
        terminal.says("Press enter to execute")
        terminal.press(ENTER)
        assert terminal.end() == 0, terminal.printed.decode()
    again = deploy(host)
    assert (again.code, again.changed) == (0, []), again.output
