"""A session holds the lock as long as its connection lasts, and writes one line about each deploy."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from remote import backups, lock, pm2, services, session, wire
from remote.files import sha256
from remote.lock import held
from remote.processes import Process
from remote.session import MISSED
from tests.rehearsal.host import until
from tests.unit.remote.conftest import Start, names

# argv: the folder of it all, session's arguments as JSON, BEAT, and WAIT for a step that still runs
DRIVER = """import contextlib, json, os, sys, time, types
from remote import backups, lock, look, pm2, services, session, step
folder, held = sys.argv[1], lock.held
@contextlib.contextmanager
def pausing(name, wait):
    with held(name, wait) as mine:
        yield mine
    while name == lock.STEP and os.path.exists(f"{folder}/pause"):
        time.sleep(0.01)
lock.held = pausing
lock.FOLDER, backups.BACKUPS, session.AUDIT = f"{folder}/var/run", f"{folder}/var/backups", f"{folder}/audit.jsonl"
services.STATE = f"{folder}/var/lib"
session.AUDIT_SIZE, session.BEAT, session.KEY, step.WAIT = 1000, float(sys.argv[3]), 60, float(sys.argv[4])
session.require_root = lambda: None
pm2._running = lambda: [pm2.Owner("root", open(f"{folder}/home").read(), "")]
look.NOUNS.append("whose")
sys.modules["remote.whose"] = types.SimpleNamespace(read=lambda: pm2.owner("api").home)
session.session(**json.loads(sys.argv[2]))
"""
JOURNALCTL = """#!/bin/sh
echo "$@" > "${0%/*}/asked"
echo "Accepted publickey for root from 192.0.2.1 port 50000 ssh2: ED25519 SHA256:AbC+/123"
"""
FROM = "192.0.2.1 50000 192.0.2.2 22"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A host's journal, with sshd's line about our connection."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/journalctl").write_text(JOURNALCTL)
    (tmp_path / "bin/journalctl").chmod(0o755)
    return tmp_path / "bin"


class Begin:
    """Begins sessions on one host."""

    def __init__(self, start: Start, folder: Path) -> None:
        self.start, self.folder = start, folder

    def __call__(
        self,
        who: str = "anna@laptop",
        wait: int = 0,
        connection: str = FROM,
        beat: float = 20,
        quiet: float = 60,
        **more: str,
    ) -> subprocess.Popen[bytes]:
        questions = {"source": {"app_dir": str(self.folder), "paths": ["a.js"], "mention": "x"}}
        arguments = {"who": who, "app": "api", "bundle": "1.0-3-gabc", "wait": wait, "questions": questions, **more}
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        env = {"PATH": path, **({"SSH_CONNECTION": connection} if connection else {})}
        driver = (sys.executable, "-S", "-c", DRIVER, str(self.folder), json.dumps(arguments), str(beat), str(quiet))
        return self.start(*driver, env=env)

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "audit.jsonl").read_text().splitlines()]


@pytest.fixture
def begin(start: Start, tmp_path: Path, journal: Path) -> Begin:
    del journal
    return Begin(start, tmp_path)


def line(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout and process.stderr
    said = process.stdout.readline()
    assert said, process.stderr.read().decode()
    return wire.unpack(said)


def told(result: str, *changed: str) -> str:
    """What a client says at its end."""
    return f"{wire.pack({'result': result, 'changed': changed})}\n"


def end(process: subprocess.Popen[bytes], said: str = "") -> None:
    stdout, stderr = process.communicate(said.encode(), timeout=60)
    assert (process.returncode, stderr) == (0, b"")
    went_well = False
    with suppress(ValueError):  # the line may be cut
        went_well = said.endswith("\n") and wire.unpack(said)["result"] == "ok"
    assert not stdout or wire.unpack(stdout) == ({} if went_well else {"put_back": [], "stuck": []})


def test_a_session(begin: Begin, journal: Path, tmp_path: Path) -> None:
    process = begin()
    answer = line(process)
    assert answer["readings"] == {"source": {"a.js": None}}
    assert re.fullmatch(r"\d{8}T\d{6}Z", answer["deploy"])
    assert process.poll() is None
    with held("deploy.lock", 0) as mine:
        assert mine is None
    with held(lock.STEP, 0) as mine:
        assert mine is not None  # the steps of this very deploy come now
    (tmp_path / "F").touch()
    backups.keep(answer["deploy"], f"{tmp_path}/F", "")

    end(process, told("ok", "nginx: Ключ"))

    (entry,) = begin.audit()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry["at"])
    assert entry == {
        **{"at": entry["at"], "deploy": answer["deploy"], "app": "api", "who": "anna@laptop"},
        **{"from": "192.0.2.1"},
        **{"key": "SHA256:AbC+/123", "bundle": "1.0-3-gabc"},
        **{"result": "ok", "changed": ["nginx: Ключ"], "files": [f"{tmp_path}/F"]},
    }
    assert r"from 192\.0\.2\.1 port 50000 " in (journal / "asked").read_text(), "others had that port before"
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o640
    with held("deploy.lock", 0) as mine:
        assert mine is not None


@pytest.mark.parametrize("said", ["", told("ok")[:-9], "\x00", "{}\n"])
def test_cut_off(begin: Begin, said: str) -> None:
    process = begin()
    line(process)
    end(process, said)
    assert [(entry["result"], entry["changed"]) for entry in begin.audit()] == [("cut off", [])]


def test_it_looks_again_when_it_is_asked(begin: Begin, tmp_path: Path) -> None:
    """Signs of life before and after a question are none."""
    process = begin()
    deploy = line(process)["deploy"]
    assert process.stdin
    for text in ("1", "2"):
        (tmp_path / "a.js").write_text(text)
        questions = {"source": {"app_dir": str(tmp_path), "paths": ["a.js"], "mention": "x"}}
        process.stdin.write(f"\n\n{wire.pack({'questions': questions})}\n\n".encode())
        process.stdin.flush()
        assert line(process) == {"deploy": deploy, "readings": {"source": {"a.js": text}}}
    end(process, told("ok", "A"))
    assert [(entry["result"], entry["changed"]) for entry in begin.audit()] == [("ok", ["A"])]


def test_a_look_finds_anew_whose_pm2_it_is(begin: Begin, tmp_path: Path) -> None:
    process = begin()
    line(process)
    assert process.stdin
    for home in ("/root/.pm2", "/home/app/.pm2"):
        (tmp_path / "home").write_text(home)
        process.stdin.write(f"{wire.pack({'questions': {'whose': {}}})}\n".encode())
        process.stdin.flush()
        assert line(process)["readings"] == {"whose": home}
    end(process, told("ok"))


def test_it_looks_at_nouns_alone(begin: Begin, tmp_path: Path) -> None:
    """A key that can only converge may begin one, and is checked no more: the modules have other things to read."""
    process = begin()
    line(process)
    assert process.stdin
    (tmp_path / "F").write_text("secret")
    process.stdin.write(f"{wire.pack({'questions': {'files': {'path': f'{tmp_path}/F'}, '../os': {}}})}\n".encode())
    process.stdin.flush()
    assert line(process)["readings"] == {
        "files": {"error": "files is no noun"},
        "../os": {"error": "../os is no noun"},
    }
    end(process, told("ok"))


def test_the_notes_of_a_version_before(begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until 2026-11-29 all apps of a host had one, named api; what it says counts still, for whose it is."""
    monkeypatch.setattr(services, "STATE", f"{tmp_path}/var/lib")
    kept = {"deploy": "1", "app": "shop", "undoes": "", "kept": None, "wrote": None}
    for name in ("api", "api.started"):
        services.save_note(name, {"processes": [name], "files": {"/a": kept} if name == "api" else {}})
    for app in ("blog", "", "shop", "api"):  # an empty one: of one operation alone
        process = begin(app=app)
        line(process)
        end(process, told("ok"))
    assert names(tmp_path / "var/lib") == ["app-shop.json", "app-shop.started.json"]
    assert services.load_note("app-shop.started")["processes"] == ["api.started"]


@pytest.mark.parametrize("app", ["api", ""], ids=["all", "one operation alone"])
@pytest.mark.parametrize("result", ["ok", "failed", "cut off"])
def test_what_no_service_has_loaded_is_put_back(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: str, app: str
) -> None:
    """A token that the API does not survive, and a client that dies before the restart."""
    monkeypatch.setattr(services, "STATE", f"{tmp_path}/var/lib")
    env = tmp_path / "env"
    env.write_text("A=1\n")
    back = result != "ok"
    process = begin(app=app)
    deploy = line(process)["deploy"]
    running = [Process(1, "boot/1/1", 0)]
    other = tmp_path / "other"
    services.replace_file("1", "app-api", running, str(other), b"of an earlier deploy", None, 0o600)
    services.replace_file(deploy, "app-api", running, str(env), b"A=2\n", sha256(b"A=1\n"), 0o600)
    with held(lock.STEP, 0):  # a step that is still running may be the one that loads it
        assert process.stdin and process.stdout
        process.stdin.write(b"" if result == "cut off" else told(result).encode())
        process.stdin.close()
        assert env.read_text() == "A=2\n"
    said = process.stdout.read()
    process.wait(60)
    assert env.read_text() == ("A=1\n" if back else "A=2\n")
    assert wire.unpack(said.decode()) == ({"put_back": [str(env)], "stuck": []} if back else {})
    assert other.exists(), "a restart that was not ours may have loaded it since"
    (entry,) = begin.audit()
    assert (entry["result"], entry.get("put_back")) == (result, [str(env)] if back else None)


def test_a_session_from_the_host_itself(begin: Begin) -> None:
    process = begin(connection="")
    line(process)
    end(process)
    assert [(entry["from"], entry["key"]) for entry in begin.audit()] == [("this host", None)]


def test_a_second_one_is_told_who_deploys(begin: Begin) -> None:
    first = begin("a-name-that-is-long@laptop")
    line(first)
    second = begin("boris@laptop")
    locked = line(second)["locked"]
    assert (locked["who"], locked["from"]) == ("a-name-that-is-long@laptop", "192.0.2.1")
    end(second)
    end(first)

    third = begin("boris@laptop")
    assert "deploy" in line(third)
    holder = json.loads(Path(lock.FOLDER, "deploy.lock").read_text())
    assert holder["who"] == "boris@laptop"  # nothing is left of the longer name
    fourth = begin("clara@laptop", wait=60)
    end(third)
    assert "deploy" in line(fourth)  # it has waited
    end(fourth)
    assert [entry["who"] for entry in begin.audit()] == ["a-name-that-is-long@laptop", "boris@laptop", "clara@laptop"]


def test_one_that_was_killed_is_resumed(begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its client, for what nothing has loaded must be put back; not after another deploy."""
    monkeypatch.setattr(services, "STATE", f"{tmp_path}/var/lib")
    running = [Process(1, "boot/1/1", 0)]
    for is_last in (True, False):
        first = begin()
        deploy = line(first)["deploy"]
        env = tmp_path / f"env{is_last}"
        env.write_text("A=1\n")
        services.replace_file(deploy, "app-api", running, str(env), b"A=2\n", sha256(b"A=1\n"), 0o600)
        first.kill()
        first.wait()
        if not is_last:
            other = begin("boris@laptop")
            line(other)
            end(other, told("ok"))

        again = begin(resumed=deploy)
        assert (line(again)["deploy"] == deploy) == is_last
        out, _ = again.communicate(told("failed").encode(), timeout=60)
        assert wire.unpack(out.decode()) == {"put_back": [str(env)] if is_last else [], "stuck": []}
        assert env.read_text() == ("A=1\n" if is_last else "A=2\n")
    assert [entry["result"] for entry in begin.audit()] == ["failed", "ok", "failed"]


def test_a_session_that_is_killed_lets_go(begin: Begin) -> None:
    first = begin()
    line(first)
    first.kill()
    first.wait()
    assert "deploy" in line(begin())


def test_a_step_that_outlived_its_deploy(begin: Begin, tmp_path: Path) -> None:
    with held(lock.STEP, 0):
        process = begin(quiet=0.1)
        assert line(process) == {"busy": True}
        end(process)
    assert not (tmp_path / "audit.jsonl").exists()
    assert "deploy" in line(begin())


def test_two_deploys_in_one_second_have_two_ids(begin: Begin, tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        process = begin()
        found.append(line(process)["deploy"])
        backups.keep(found[-1], f"{tmp_path}/F", "")
        end(process)
    assert found[0] < found[1]


def test_it_outlives_a_hang_up(begin: Begin) -> None:
    process = begin()
    line(process)
    for number in (1, 2, 15):
        process.send_signal(number)
    assert process.stdout and process.stderr
    process.stdout.close()
    process.stderr.close()
    assert process.stdin
    process.stdin.write(told("failed").encode())
    process.stdin.close()
    process.wait(60)
    assert [entry["result"] for entry in begin.audit()] == ["failed"]


def test_a_client_that_is_silent_is_gone(begin: Begin) -> None:
    """Its laptop has lost its power, or sleeps: nothing closes the connection."""
    process = begin(beat=0.02)
    line(process)
    assert process.wait(60) == 0
    assert [entry["result"] for entry in begin.audit()] == ["cut off"]


def test_signs_of_life_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as late as it may be; an empty piece here is a beat that was missed."""
    said = [*[*[b""] * (MISSED - 1), b"\n"] * 3, told("ok").encode()]

    def select(*_: object) -> tuple[list[int], list[int], list[int]]:
        return [0] if said[0] or said.pop(0) else [], [], []

    monkeypatch.setattr(session, "select", SimpleNamespace(select=select))
    monkeypatch.setattr(session, "os", SimpleNamespace(read=lambda *_: said.pop(0)))
    assert session._heard()["result"] == "ok"


def test_a_step_on_its_way_finds_no_session(begin: Begin, tmp_path: Path) -> None:
    """Whoever has the step's lock after a session's end, the deploy's own is free by then."""
    process = begin()
    line(process)
    (tmp_path / "pause").touch()  # as soon as it has let go of the steps' lock
    assert process.stdin
    process.stdin.close()
    until(60, "its line", (tmp_path / "audit.jsonl").exists)
    with held(lock.STEP, 60) as mine, held(lock.DEPLOY, 0) as free:
        assert mine is not None
        assert free is not None
    (tmp_path / "pause").unlink()
    process.wait(60)


def test_what_cannot_be_put_back_is_told(begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "STATE", f"{tmp_path}/var/lib")
    process = begin()
    deploy = line(process)["deploy"]
    env = tmp_path / "env"
    env.write_text("A=1\n")
    services.replace_file(deploy, "app-api", [Process(1, "boot/1/1", 0)], str(env), b"A=2\n", sha256(b"A=1\n"), 0o600)
    Path(f"{backups.BACKUPS}/{deploy}{env}").unlink()
    assert process.stdin
    process.stdin.close()
    process.wait(60)
    (entry,) = begin.audit()
    assert entry["stuck"] == [f"{env}: {backups.BACKUPS}/{deploy}{env} is gone, so {env} cannot be put back"]


def test_a_note_that_cannot_be_read_is_told(begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other service's file goes back all the same, and the deploy has its line in the log."""
    monkeypatch.setattr(services, "STATE", f"{tmp_path}/var/lib")
    process = begin()
    deploy = line(process)["deploy"]
    file, note = tmp_path / "file", tmp_path / "var/lib/nginx.json"
    services.replace_file(deploy, "app-api", [Process(1, "boot/1/1", 0)], str(file), b"new", None, 0o600)
    note.mkdir()
    manifest = tmp_path / f"var/backups/{deploy}/manifest.json"
    manifest.unlink()
    manifest.mkdir()
    assert process.stdin
    process.stdin.write(told("failed").encode())
    process.stdin.close()
    process.wait(60)
    (entry,) = begin.audit()
    assert entry["stuck"] == [f"what nginx has not loaded, {note}: EISDIR: Is a directory, {note}"]
    assert (entry["result"], entry["put_back"], entry["files"]) == ("failed", [str(file)], [])
    assert not file.exists()


def test_notes_that_cannot_be_listed_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def noted() -> list[str]:
        raise OSError(errno.EIO, "Input/output error", "/var/lib")

    monkeypatch.setattr(services, "noted", noted)
    assert session._give_up("1", 0) == {"put_back": [], "stuck": ["EIO: Input/output error, /var/lib"]}


def test_the_log_is_rotated(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").write_text("a" * 1000)
    (tmp_path / "audit.jsonl.1").write_text("b")
    (tmp_path / "audit.jsonl.2").write_text("c")
    for _ in range(2):
        process = begin()
        line(process)
        end(process)
    assert len(begin.audit()) == 2
    assert (tmp_path / "audit.jsonl.1").read_text() == "a" * 1000
    assert (tmp_path / "audit.jsonl.2").read_text() == "b"
    assert [name for name in names(tmp_path) if name.startswith("audit")] == [
        *("audit.jsonl", "audit.jsonl.1", "audit.jsonl.2")
    ]


@pytest.mark.parametrize(
    ("seconds", "daemon", "asked"),
    [
        (3600, True, []),  # it runs what it always ran
        (1, True, ["restart api"]),  # started on what was put back, by systemd, say
        (1, False, []),  # systemd is about to start it
    ],
)
def test_what_was_started_on_what_is_put_back(
    monkeypatch: pytest.MonkeyPatch, seconds: float, daemon: bool, asked: list[str]
) -> None:
    said: list[str] = []
    monkeypatch.setattr(pm2, "processes", lambda _: [Process(1, "boot/1/1", time.time() - seconds)])
    monkeypatch.setattr(pm2, "daemon_runs", lambda _: daemon)
    monkeypatch.setattr(pm2, "command", lambda *words: said.append(" ".join(words[2:])))
    session._restart("api", age=60)
    assert said == asked


@pytest.mark.parametrize(("status", "stays"), [("online", True), ("silent", False), ("errored", False)])
def test_what_the_api_has_run_for_long_is_not_undone_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, stays: bool
) -> None:
    """A deploy was killed before its restart, and the host booted; weeks of deploys found nothing to do since. When
    redis is away then, no restart may bring the `.env` of before it."""
    monkeypatch.setattr(services, "STATE", f"{tmp_path}/var/lib")
    monkeypatch.setattr(pm2, "processes", lambda _: [Process(2, "boot/2/1", 0)])
    (tmp_path / "F").write_bytes(b"old")
    services.replace_file("1", "app-api", [Process(1, "boot/1/1", 0)], f"{tmp_path}/F", b"new", sha256(b"old"), 0o600)
    readings = {"pm2": {"status": status}, "nginx": {"error": "no nginx"}}
    session._settle({"pm2": {"api": {"app": "api"}}}, readings)
    services.undo("app-api")
    assert (tmp_path / "F").read_bytes() == (b"new" if stays else b"old")
