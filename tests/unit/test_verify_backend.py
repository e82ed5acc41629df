"""The testinfra backend, against an agent on this machine: many commands side by side, over one connection."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.rehearsal.host import until
from tests.verify.backend import LAUNCH, Backend, Lost, warm

HERE = [sys.executable, "-I", "-S", "-c", LAUNCH]


@pytest.fixture
def backend() -> Iterator[Backend]:
    made = Backend("here", HERE)
    yield made
    made.close()


@pytest.fixture
def host(backend: Backend) -> Host:
    return Host(backend)


def test_testinfras_own_modules(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.write_bytes(b"caf\xc3\xa9 \xff\n")
    file.chmod(0o640)
    assert host.file(str(file)).mode == 0o640
    assert host.file(str(file)).content == b"caf\xc3\xa9 \xff\n"
    assert host.file(str(file)).content_string == "café �\n"
    assert not host.file(str(tmp_path / "none")).exists
    done = host.run("echo %s; echo wrong >&2; exit 3", "it's")
    assert (done.stdout, done.stderr, done.rc) == ("it's\n", "wrong\n", 3)
    assert host.system_info.type == "linux"


def test_a_command_runs_once(host: Host, tmp_path: Path) -> None:
    for _ in range(3):
        assert host.run("echo x >> %s; wc -l < %s", str(tmp_path / "log"), str(tmp_path / "log")).stdout.strip() == "1"


def test_commands_run_side_by_side(host: Host, tmp_path: Path) -> None:
    """Each of the ten waits until all ten have begun."""
    script = 'touch %s/$1; for i in $(seq 500); do [ "$(ls %s | wc -l)" = 10 ] && exit; sleep 0.02; done; exit 1'
    commands = [script.replace("%s", str(tmp_path)).replace("$1", str(each)) for each in range(10)]
    warm([lambda each=each: host.run(each) for each in commands])  # type: ignore[misc]
    assert [host.run(each).rc for each in commands] == [0] * 10


def test_what_waits_for_one_another_is_counted(host: Host, backend: Backend) -> None:
    def three() -> None:
        for _ in range(3):
            host.run(f"echo {host.run('date +%N').stdout}{_}")

    warm([*[lambda each=each: host.run(f"echo {each}") for each in range(50)], three])
    assert backend.round_trips == 4  # the date, and three commands, each after the one before


def test_a_check_that_raises_does_not_stop_the_others(host: Host) -> None:
    seen = []

    def fails() -> None:
        raise SystemExit

    warm([fails, lambda: seen.append(host.run("echo here").stdout)])
    assert seen == ["here\n"]


def test_a_command_that_hangs_is_ended(host: Host) -> None:
    began = time.monotonic()
    done = host.run("echo before; sleep 60 & sleep 60", timeout=3)
    assert (done.rc, done.stdout) == (124, "before\n")
    assert "did not end within 3 s" in done.stderr
    assert time.monotonic() - began < 30


def test_endless_output_is_cut(host: Host) -> None:
    done = host.run("yes")
    assert (done.rc, len(done.stdout)) == (124, 4_000_000)
    assert "printed more than 4000000 bytes" in done.stderr


def test_what_a_command_leaves_behind_ends_with_it(host: Host) -> None:
    pid = host.run("sleep 60 >/dev/null 2>&1 & echo $!").stdout.strip()
    until(60, "its end", lambda: _ended(pid))


def test_nothing_outlives_the_connection(backend: Backend, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    warm_up = Host(backend)
    assert warm_up.run("true").rc == 0
    backend._ask(f"echo $$ > {file}; sleep 60", 60)
    until(60, "the command", lambda: file.exists() and file.read_text().strip() != "")
    assert not _ended(file.read_text().strip())
    backend.close()
    until(60, "its end", lambda: _ended(file.read_text().strip()))


def _ended(pid: str) -> bool:
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def test_the_environment_is_in_no_argument_list() -> None:
    backend = Backend("here", HERE, environment={"PGPASSWORD": "secret-of-this-test'"})
    said = Host(backend).run('printf %s "$PGPASSWORD"').stdout
    listed = Host(backend).run("cat /proc/[0-9]*/cmdline").stdout
    backend.close()  # before anything may fail: pytest would wait for its program at the end
    assert said == "secret-of-this-test'"
    assert "secret-of-this-test" not in listed
    assert "PGPASSWORD" not in os.environ


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["sh", "-c", "echo greeting; echo first >&2; echo Permission denied >&2; exit 255"], "Permission denied"),
        (["sh", "-c", "cat >/dev/null & exit 7"], "the connection ended (7)"),
    ],
)
def test_no_connection_is_one_line(command: list[str], why: str) -> None:
    host = Host(Backend("nowhere", command))
    for _ in range(2):
        with pytest.raises(Lost) as raised:
            host.run("true")
        assert str(raised.value) == why


def test_a_greeting_does_not_disturb() -> None:
    backend = Backend("here", ["sh", "-c", f"echo Welcome; echo '[1]'; exec {sys.executable} -c '{LAUNCH}'"])
    assert Host(backend).run("echo this").stdout == "this\n"
    backend.close()
