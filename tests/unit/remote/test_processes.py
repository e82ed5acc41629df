"""Programs run to their end, and nothing of them is left; a process is not taken for another."""

from __future__ import annotations

import os
import pwd
import socket
import sys
import time
from pathlib import Path

import pytest

from remote import Failure, files, processes
from remote.processes import Done, identify, run
from tests.unit.remote.conftest import Start, free_port


def test_status_and_output() -> None:
    assert vars(run("sh", "-c", "printf 'a\\377'; echo é >&2; exit 3")) == vars(Done(3, b"a\xff", "é\n"))


def test_a_signal_is_negative() -> None:
    assert run("sh", "-c", "kill -9 $$").status == -9


def test_stdin_folder_and_environment(tmp_path: Path) -> None:
    assert run("cat", stdin=b"x" * 200_000).stdout == b"x" * 200_000
    assert run("pwd").stdout == b"/\n"
    assert run("pwd", cwd=str(tmp_path)).stdout == f"{tmp_path}\n".encode()
    assert run("env", env={"A": "é"}).stdout == "A=é\n".encode()


def test_a_program_that_does_not_read_its_input() -> None:
    assert run("true", stdin=b"x" * 1_000_000).status == 0


def test_errors_that_are_no_text() -> None:
    assert run("printf", "").stderr == ""
    assert run("sh", "-c", "printf '\\377' >&2").stderr == "\ufffd"


def test_the_timeout_kills_all_of_it(tmp_path: Path) -> None:
    begun = time.monotonic()
    done = run("sh", "-c", f"echo begun; sh -c 'echo $$ > {tmp_path}/pid; sleep 120; true'; true", timeout=3)
    assert time.monotonic() - begun < 60
    assert (done.status, done.stdout) == (-9, b"begun\n")
    assert done.stderr == "\nsh did not end within 3 s"
    grandchild = (tmp_path / "pid").read_text().strip()
    deadline = time.monotonic() + 60
    while "\nState:\tZ" not in (status := _status(grandchild)) and status:
        assert time.monotonic() < deadline, "the grandchild lives"
        time.sleep(0.01)


def _status(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_its_umask_is_022_whatever_ours_is() -> None:
    old = os.umask(0o077)
    try:
        assert run("sh", "-c", "umask").stdout == b"0022\n"
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(old)


def test_only_the_descriptors_that_are_given() -> None:
    ours, given = os.memfd_create("ours"), os.memfd_create("given")
    os.set_inheritable(ours, True)
    os.write(given, b"text")
    try:
        done = run("sh", "-c", f"cat /dev/fd/{given}; ls /proc/self/fd", fds=[given])
    finally:
        os.close(ours)
        os.close(given)
    listed = done.stdout.removeprefix(b"text").split()
    assert done.stdout.startswith(b"text")
    assert str(ours).encode() not in listed


def test_as_another_user() -> None:
    """With its groups and no others. As ourselves nothing changes."""
    nobody = pwd.getpwnam("nobody")
    assert run("id", "-u", user="nobody").stdout == f"{nobody.pw_uid}\n".encode()
    groups = {int(each) for each in run("id", "-G", user="nobody").stdout.split()}
    assert groups == {*os.getgrouplist("nobody", nobody.pw_gid)}
    own = pwd.getpwuid(os.geteuid()).pw_name
    assert run("id", "-G", user=own).stdout == run("id", "-G").stdout


@pytest.mark.parametrize(
    ("program", "remedy"), [("pm2", "npm install --global pm2"), ("setfacl", "apt-get install setfacl")]
)
def test_a_missing_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, remedy: str) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / program).write_text("not to be executed")
    with pytest.raises(Failure) as failure:
        run(program, "list")
    assert str(failure.value) == f"{program} is not installed: {remedy}"


def test_a_program_that_an_interactive_shell_alone_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "v20/bin").mkdir(parents=True)
    (tmp_path / "v20/bin/npm").touch()
    monkeypatch.setattr(processes, "NVM", ("/nowhere/*/bin", f"{tmp_path}/*/bin"))
    with pytest.raises(Failure, match=f"^npm is only in {tmp_path}/v20/bin, which a non-interactive ssh does not have"):
        processes.require("npm", path=str(tmp_path))


def test_line_with() -> None:
    assert Done(1, b"", "one\nError: two\nError: three\n").line_with("Error") == "Error: two"
    assert Done(1, b"", "one\ntwo\n").line_with("Error") == "two"
    assert Done(1, b"", "\n").line_with("Error") == ""


def test_identify(start: Start) -> None:
    before = time.time()
    child = start("sleep", "60")
    found = identify(child.pid)
    assert found
    again = identify(str(child.pid))
    assert again and again.id == found.id
    assert found.pid == child.pid
    assert before - 0.05 <= found.started <= time.time() + 0.05
    assert found.id.split("/")[1] == str(child.pid)
    child.kill()
    child.wait()
    assert identify(child.pid) is None


def test_a_start_in_a_container_is_told_by_the_hosts_boot(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """LXC's /proc/uptime is the container's; the start in /proc/<pid>/stat is not."""
    child = start("sleep", "60")
    real = files.read_text
    monkeypatch.setattr(files, "read_text", lambda path: "60.0 60.0" if path == "/proc/uptime" else real(path))
    found = identify(child.pid)
    assert found and abs(found.started - time.time()) < 30


def test_a_name_with_blanks_and_brackets(start: Start, tmp_path: Path) -> None:
    """It stands before the start in /proc/<pid>/stat, as it is."""
    program = tmp_path / ") S 1 (x"
    program.symlink_to("/bin/sleep")
    child = start(str(program), "60")
    own = identify(os.getpid())
    found = identify(child.pid)
    assert own and found
    assert own.started <= found.started + 0.05


def test_a_process_in_a_container_is_not_of_this_host(start: Start, tmp_path: Path) -> None:
    inside = f"import os, sys; os.chroot({str(tmp_path)!r}); print(flush=True); sys.stdin.read()"
    child = start(sys.executable, "-S", "-c", inside)
    assert child.stdout
    child.stdout.readline()
    assert not processes.is_of_this_host(child.pid)
    assert processes.is_of_this_host(start("sleep", "60").pid)
    assert not processes.is_of_this_host("99999999")


def test_holder(start: Start) -> None:
    program = (
        "import socket, sys; s = socket.create_server(('', 0)); print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    child = start(sys.executable, "-S", "-c", program)
    assert child.stdout
    port = int(child.stdout.readline())
    assert processes.holder(port) == str(child.pid)
    child.kill()
    child.wait()
    assert processes.holder(port) is None


def test_environment(start: Start) -> None:
    child = start("sleep", "60", env={"A": "1", "B": "a\nb=c"})
    assert processes.environment(child.pid)[:2] == ["A=1", "B=a\nb=c"]
    child.kill()
    child.wait()
    assert processes.environment(child.pid) == [""]


ASK = "from remote.processes import variable; print(variable('SSH_CONNECTION'))"


@pytest.mark.parametrize("given", ["192.0.2.1 50000 192.0.2.2 22", ""])
def test_a_variable_of_an_ancestor(start: Start, given: str) -> None:
    """sudo would take it away, as `env -u` does here."""
    env = {**os.environ, "SSH_CONNECTION": given}
    if not given:
        del env["SSH_CONNECTION"]
    inner = f'env -u SSH_CONNECTION sh -c "\\"{sys.executable}\\" -c \\"{ASK}\\"; true"; true'
    child = start("sh", "-c", inner, env=env)
    stdout, stderr = child.communicate(timeout=60)
    assert stdout.decode() == f"{given}\n", stderr


@pytest.mark.parametrize(
    ("family", "address", "is_reached"),
    [
        (socket.AF_INET, "127.0.0.1", True),
        (socket.AF_INET, "0.0.0.0", True),  # noqa: S104 -- for a moment, to ask whether it is reached
        (socket.AF_INET6, "::", True),
        (socket.AF_INET6, "::ffff:127.0.0.1", True),
        (socket.AF_INET6, "::1", False),
        (socket.AF_INET, "127.0.0.2", False),
    ],
)
def test_reached(family: socket.AddressFamily, address: str, is_reached: bool) -> None:
    port = free_port()
    with socket.socket(family) as server:
        server.bind((address, port))
        server.listen()
        assert processes.reached(port) is is_reached
        with socket.socket() as guest:
            assert (guest.connect_ex(("127.0.0.1", port)) == 0) is is_reached
