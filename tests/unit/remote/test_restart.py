"""What is asked of the API after a restart, and what is shown of its log."""

from __future__ import annotations

import http.server
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import cast

import pytest

from remote import Failure, backups, nginx, pm2, processes, restart, services, source, waiting_room
from remote.files import sha256
from remote.processes import Done, Process
from remote.readings import Api
from remote.waiting_room import Door as RoomDoor
from tests.unit.remote.conftest import Start, free_port

# --- last_lines


def test_values_are_masked_the_longest_first(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("secret-and-more secret secret-and\nshort abc12\nback\\slash.*(\n")
    hidden = ["secret", "secret-and-more", "abc12", "back\\slash.*(", ""]
    assert restart.last_lines(str(log), hidden) == "**** **** ****-and\nshort abc12\n****"


def test_only_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    assert restart.last_lines(str(log), []).splitlines() == [f"line {number}" for number in range(80, 100)]
    assert restart.last_lines(f"{tmp_path}/no", ["secret"]) == restart.last_lines("", []) == ""


def test_a_value_of_more_lines_than_are_shown_is_masked(tmp_path: Path) -> None:
    log, key = tmp_path / "log", "\n".join(f"MIIE{number}" for number in range(30))
    log.write_text(f"key: {key}; bye\n")
    assert restart.last_lines(str(log), [key]) == "key: ****; bye"


def test_a_value_over_several_lines_is_masked(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("key: -----BEGIN\nMIIE\n-----END; bye\n")
    assert restart.last_lines(str(log), ["-----BEGIN\nMIIE\n-----END"]) == "key: ****; bye"


# --- listens


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::")])
def test_listens(start: Start, family: socket.AddressFamily, address: str) -> None:
    port = free_port()
    with socket.socket(family) as server:
        server.bind((address, port))
        assert not processes.listens(os.getpid(), port)  # bound, and not listening
        server.listen()
        assert processes.listens(os.getpid(), port)
        assert not processes.listens(start("sleep", "60").pid, port)
        with socket.create_connection(("localhost", port)) as guest:
            assert not processes.listens(os.getpid(), guest.getsockname()[1])  # connected, and not listening
    assert not processes.listens(os.getpid(), port)


def test_the_port_of_another_process_proves_nothing(start: Start) -> None:
    program = """import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print(flush=True)
sys.stdin.read()"""
    port = free_port()
    other = start(sys.executable, "-S", "-c", program, str(port))
    assert other.stdout
    other.stdout.readline()
    assert processes.listens(other.pid, port)
    assert not processes.listens(os.getpid(), port)
    other.kill()
    other.wait()
    assert not processes.listens(other.pid, port)


# --- health


class _Handler(http.server.BaseHTTPRequestHandler):
    asked: list[str]
    status: int  # 0: closes the connection; -1: no HTTP; -2: never answers
    over: threading.Event

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.status == -2:
            self.over.wait()
        elif self.status == -1:
            self.wfile.write(b"hello\r\n\r\n")
        elif self.status:
            self.send_response(self.status)
            self.end_headers()

    def log_message(self, format: str, *_: object) -> None:
        del format


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    over = threading.Event()
    handler = type("Handler", (_Handler,), {"asked": [], "status": 200, "over": over})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        over.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "wrong"),
    [
        (200, ""),
        (302, ""),
        (404, ""),
        (499, ""),
        (500, "/health answers 500"),
        (503, "/health answers 503"),
        (0, "/health does not answer: Remote end closed connection without response"),
        (-1, "/health does not answer: hello"),
    ],
)
def test_health(server: http.server.ThreadingHTTPServer, status: int, wrong: str) -> None:
    handler = server.RequestHandlerClass
    handler.status = status  # type: ignore[attr-defined]
    assert restart.health(server.server_port).strip() == wrong
    assert handler.asked == ["/health"]  # type: ignore[attr-defined]


def test_health_that_never_comes(server: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart, "HEALTH", 0.05)
    server.RequestHandlerClass.status = -2  # type: ignore[attr-defined]
    assert restart.health(server.server_port) == "/health does not answer: timed out"


def test_health_of_a_closed_port() -> None:
    assert "Connection refused" in restart.health(free_port())


# --- wait_until_stable


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def workers(clock: Clock, monkeypatch: pytest.MonkeyPatch, second: Callable[[float], object]) -> None:
    """Two workers that answer. The second one's number is that of the process which is it at this time."""

    def now(app: str) -> list[Process]:
        return [Process(1, app, 0.0), Process(2, f"{second(clock.now)}", 0.0)]

    monkeypatch.setattr(restart, "time", clock)
    monkeypatch.setattr(restart, "health", lambda port, _: "" if port else "no port")
    monkeypatch.setattr(nginx, "retry_upstreams", lambda *_: None)
    monkeypatch.setattr(pm2, "serves", lambda app, port: bool(app and port))
    monkeypatch.setattr(pm2, "processes", now)


class Door:
    """A waiting room that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def hold(self) -> None:
        self.told.append("hold")

    def let_in(self) -> bool:
        if self.told[-1:] == ["let in"]:
            return False
        self.told.append("let in")
        return True


def wait_until_stable(door: Door | None = None, logs: Mapping[str, int] | None = None) -> None:
    restart.wait_until_stable(STABLE, cast(RoomDoor, door or Door()), logs=logs)


STABLE: Api = {
    "app": "api",
    "app_dir": "/app",
    "port": 3000,
    "packages": [],
    "start_timeout": 20,
    "settle_time": 5,
}


def test_every_worker_must_stay_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    workers(clock, monkeypatch, lambda now: now > 3)
    door = Door()
    wait_until_stable(door)
    assert door.told == ["hold", "let in", "hold", "let in"]
    assert 8 < clock.now < 9


def test_whoever_waits_is_let_in_again_only_when_it_has_proved_stable(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    workers(clock, monkeypatch, lambda now: now > 3)
    times: list[float] = []

    class Timed(Door):
        def let_in(self) -> bool:
            if is_new := super().let_in():
                times.append(clock.now)
            return is_new

    wait_until_stable(Timed())
    first, second = times
    assert first == 0 and second > 8


def test_a_worker_that_ends_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one answers all the while."""
    clock = Clock()
    workers(clock, monkeypatch, lambda now: now // 1.5)
    with pytest.raises(Failure, match="it answered, then exited and was restarted; it ended 10 times"):
        wait_until_stable()
    assert 15 <= clock.now < 16  # not start_timeout, 20


@pytest.mark.parametrize(
    ("before", "grows_at", "ends_at", "least"),
    [
        ({"/log": 7}, 99.0, 99.0, restart.SURE),
        ({"/log": 7}, 0.5, 99.0, 5.0),  # it said something
        ({"/log": 6}, 99.0, 99.0, 5.0),  # and that was before it answered
        ({"/log": 7}, 99.0, 0.5, 5.5),  # a worker has ended
        ({}, 99.0, 99.0, 5.0),  # it logs to no file
    ],
)
def test_a_second_is_enough_where_nothing_speaks_against_it(
    monkeypatch: pytest.MonkeyPatch, before: dict[str, int], grows_at: float, ends_at: float, least: float
) -> None:
    clock = Clock()
    workers(clock, monkeypatch, lambda now: now > ends_at)
    monkeypatch.setattr(pm2, "error_logs", lambda _: {"/log": 8 if clock.now > grows_at else 7} if before else {})
    wait_until_stable(logs=before)
    assert least <= clock.now < least + 0.2


def test_health_is_asked_again_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes live on, and do not answer any more."""
    clock = Clock()
    workers(clock, monkeypatch, bool)
    monkeypatch.setattr(restart, "health", lambda *_: "/health answers 503" if clock.now > 3 else "")
    with pytest.raises(Failure, match="/health answers 503"):
        wait_until_stable()
    assert 20 <= clock.now < 26


def test_the_answer_of_another_process_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    workers(Clock(), monkeypatch, bool)
    monkeypatch.setattr(pm2, "serves", lambda *_: False)
    with pytest.raises(Failure, match="its port never opened"):
        wait_until_stable()


def test_pm2_is_not_asked_while_its_daemon_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd starts it. pm2's command would start a second one."""
    clock = Clock()
    workers(clock, monkeypatch, bool)
    there = pm2.processes("api")
    monkeypatch.setattr(pm2, "processes", lambda _: there if clock.now > 4 else [])
    monkeypatch.setattr(pm2, "daemon_runs", lambda _: clock.now > 4)
    monkeypatch.setattr(pm2, "command", lambda *_: pytest.fail("pm2 was asked"))
    wait_until_stable()
    assert 9 < clock.now < 10


# --- restart, with a pm2 that answers as it is told


class Pm2:
    """Keeps what it was asked; `restart` fails as where another daemon has the app, or succeeds."""

    def __init__(self, restarts: bool) -> None:
        self.asked: list[str] = []
        self.restarts = restarts

    def command(self, app: str, app_dir: str, *arguments: str, inherited: object) -> Done:
        del app, app_dir, inherited
        self.asked.append(" ".join(arguments))
        return Done(0 if self.restarts or arguments[0] != "restart" else 1, b"", "[PM2][ERROR] not found")


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Api:
    monkeypatch.setattr(pm2, "processes", lambda app: [Process(1, f"boot/1/{app}", 0.0)])
    monkeypatch.setattr(pm2, "daemon_runs", bool)
    monkeypatch.setattr(pm2, "serves", lambda app, port: bool(app and port))
    monkeypatch.setattr(pm2, "apps", lambda *of: [{"name": f"another in {of}", "pm2_env": {}}])
    monkeypatch.setattr(pm2, "anew", lambda app, _: (["start", "ecosystem.config.js", "--only", app], {}))
    monkeypatch.setattr(pm2, "hidden", lambda *_: [])
    monkeypatch.setattr(waiting_room, "FOLDER", str(tmp_path / "room"))
    monkeypatch.setattr(waiting_room, "SOCKET", str(tmp_path / "room/api"))
    monkeypatch.setattr(waiting_room, "SIGN", str(tmp_path / "room/sign"))
    monkeypatch.setattr(restart, "wait_until_stable", lambda *_: None)
    return {
        "app": "api",
        "app_dir": str(tmp_path),
        "port": free_port(),
        "packages": [],
        "start_timeout": 1,
        "settle_time": 0,
    }


def test_an_app_started_anew_after_a_failed_restart_is_saved(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next boot starts what pm2 had saved before, without it."""
    client = Pm2(restarts=False)
    monkeypatch.setattr(pm2, "command", client.command)
    restart.restart("20260101T000000Z", api=api, keys=[])
    assert client.asked == ["restart api", "start ecosystem.config.js --only api", "save"]


@pytest.mark.parametrize("has_unit", [True, False])
def test_a_daemon_that_has_ended_is_started_by_its_unit(
    api: Api, monkeypatch: pytest.MonkeyPatch, has_unit: bool
) -> None:
    client = Pm2(restarts=True)
    monkeypatch.setattr(pm2, "command", client.command)
    monkeypatch.setattr(pm2, "daemon_runs", lambda _: False)
    monkeypatch.setattr(restart, "run", lambda *words, **_: Done(0 if has_unit else 5, b"", " ".join(words)))
    restart.restart("20260101T000000Z", api=api, keys=[])
    assert ("resurrect" in client.asked) is not has_unit


@pytest.mark.parametrize("error", [Failure("its port never opened"), OSError(12, "no memory"), KeyError("pm2_env")])
def test_the_files_go_back_whatever_went_wrong(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    client, outcomes = Pm2(restarts=True), [error]
    monkeypatch.setattr(pm2, "command", client.command)

    def wait(*_: object) -> None:
        if outcomes:
            raise outcomes.pop()

    monkeypatch.setattr(restart, "wait_until_stable", wait)
    env = tmp_path / ".env"
    env.write_text("A=old\n")
    services.replace_file("1", "app-api", pm2.processes("api"), str(env), b"A=new\n", sha256(b"A=old\n"), 0o600)
    with pytest.raises(Failure, match="with the old files, it runs as before"):
        restart.restart("20260101T000000Z", api=api, keys=[])
    assert env.read_text() == "A=old\n"
    assert client.asked == ["restart api", "restart api"]


def failing_restart(api: Api, monkeypatch: pytest.MonkeyPatch, new: str = "A=new-secret\n") -> str:
    """What a restart says that comes up with the old `.env` alone."""
    outcomes = [Failure("its port never opened")]

    def wait(*_: object) -> None:
        if outcomes:
            raise outcomes.pop()

    monkeypatch.setattr(restart, "wait_until_stable", wait)
    env = Path(api["app_dir"]) / ".env"
    env.write_text("A=old-secret\n")
    old = sha256(env.read_bytes())
    services.replace_file("1", "app-api", pm2.processes("api"), str(env), new.encode(), old, 0o600)
    with pytest.raises(Failure) as told:
        restart.restart("20260101T000000Z", api=api, keys=[])
    return str(told.value)


def test_what_waits_for_another_app_stays(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two on one host: a deploy of the other was killed before its restart."""
    monkeypatch.setattr(pm2, "command", Pm2(restarts=True).command)
    monkeypatch.setattr(source, "check", lambda *_: None)
    other = tmp_path / "other.js"
    source.write("2", app="shop", app_dir=str(tmp_path), contents={"other.js": "new"}, expected={"other.js": None})
    assert "put back as they were" in failing_restart(api, monkeypatch)
    assert other.read_text() == "new"
    assert services.undo("app-shop") == ([str(other)], []), "its way back was lost"


def test_old_and_new_values_are_masked(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old token is live again after the undo."""
    (tmp_path / "log").write_text("refused: new-secret, though old-secret was fine\n")
    listed = [{"name": "api", "pm2_env": {"status": "errored", "pm_err_log_path": f"{tmp_path}/log"}}]
    monkeypatch.setattr(pm2, "apps", lambda *_: listed)
    monkeypatch.setattr(pm2, "command", Pm2(restarts=True).command)
    assert "refused: ****, though **** was fine" in failing_restart(api, monkeypatch)


def test_a_report_never_stops_a_recovery(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Pm2(restarts=True)
    monkeypatch.setattr(pm2, "command", client.command)
    monkeypatch.setattr(pm2, "apps", lambda *_: [{}])  # a list that we do not know
    assert "with the old files, it runs as before" in failing_restart(api, monkeypatch)
    assert client.asked == ["restart api", "restart api"]


def test_pm2s_own_record_comes_back_where_the_ecosystem_file_starts_what_does_not_stay_up(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been started with `--env production`, or by hand, and the site was up."""
    client, outcomes = Pm2(restarts=True), [Failure("its port never opened")]

    def wait(*_: object) -> None:
        if outcomes:
            raise outcomes.pop()

    monkeypatch.setattr(pm2, "command", client.command)
    monkeypatch.setattr(pm2, "hidden", lambda *_: ["JWT_SECRET"])
    monkeypatch.setattr(restart, "wait_until_stable", wait)
    with pytest.raises(Failure, match="with pm2's own record of it, it runs as before"):
        restart.restart("20260101T000000Z", api=api, keys=["JWT_SECRET"])
    start = "start ecosystem.config.js --only api"
    assert client.asked == ["save", "delete api", start, "delete api", "resurrect"]


def test_an_app_that_pm2_is_to_start_at_the_next_boot_stays_saved(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pm2 delete` without a save; what pm2 saves for us is its list, without that app."""
    dump, other = tmp_path / "pm2/dump.pm2", {"name": "monitor", "env": {"A": "1"}}
    given = list[object]()
    api_saved = {"name": "api", "env": {"JWT_SECRET": "x", "NODE_ENV": "production"}}
    dump.parent.mkdir()
    dump.write_text(json.dumps([{"name": "api"}, other]))
    monkeypatch.setattr(pm2, "owner", lambda _: pm2.Owner("root", str(dump.parent), "/usr/bin"))

    def command(app: str, app_dir: str, *arguments: str, inherited: object) -> Done:
        del app, app_dir
        if arguments[0] == "start":
            given.append(inherited)
        if arguments == ("save",):
            dump.write_text(json.dumps([api_saved]))
        assert arguments != ("resurrect",) or "monitor" not in dump.read_text(), "it would be started now"
        return Done(0, b"", "")

    monkeypatch.setattr(pm2, "command", command)
    monkeypatch.setattr(pm2, "hidden", lambda *_: ["JWT_SECRET"])
    restart.run_what_is_on_disk(api=api, keys=["JWT_SECRET"])
    assert json.loads(dump.read_text()) == [api_saved, other]
    assert given == [{"NODE_ENV": "production", "PATH": "/usr/bin", "PM2_HOME": str(dump.parent)}]
    dump.write_text(json.dumps([{"name": "api"}, other]))
    failing_restart(api, monkeypatch)
    assert json.loads(dump.read_text())[1:] == [other]


def test_what_pm2s_record_of_an_app_that_did_not_run_hides_is_freed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its process shows it: the app was stopped, and `pm2 restart` gave it the old value again."""
    client, shown = Pm2(restarts=True), [[], [], ["JWT_SECRET"], ["JWT_SECRET"], []]
    monkeypatch.setattr(pm2, "command", client.command)
    monkeypatch.setattr(pm2, "hidden", lambda *_: shown.pop(0))
    restart.restart("1", api=api, keys=["JWT_SECRET"])
    assert client.asked == ["restart api", "save", "delete api", "start ecosystem.config.js --only api", "save"]


def test_what_pm2s_daemon_itself_was_started_with_is_told(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """In cluster mode pm2 7.0's workers inherit from it, however often the app is started anew."""
    env = Path(api["app_dir"]) / ".env"
    env.write_text("A=old\n")
    services.replace_file("1", "app-api", pm2.processes("api"), str(env), b"A=new\n", sha256(b"A=old\n"), 0o600)
    monkeypatch.setattr(pm2, "command", Pm2(restarts=True).command)
    monkeypatch.setattr(pm2, "hidden", lambda *_: ["JWT_SECRET"])
    with pytest.raises(Failure, match=r"api runs, but pm2's daemon itself was started with JWT_SECRET.*pm2 resurrect$"):
        restart.restart("1", api=api, keys=["JWT_SECRET"])
    assert (services.undo("app-api"), env.read_text()) == (([], []), "A=new\n"), "it runs, so it stays"


def test_the_api_is_restarted_though_a_file_cannot_go_back(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What went back is what it lives with; that pm2 has given it up on the other stays so without a restart."""
    folder, client = Path(api["app_dir"]), Pm2(restarts=True)
    monkeypatch.setattr(pm2, "command", client.command)
    for name in ("first.js", "second.js"):
        (folder / name).write_text("old")
        services.replace_file("1", "app-api", pm2.processes("api"), f"{folder}/{name}", b"new", sha256(b"old"), 0o600)
    Path(f"{backups.BACKUPS}/1{folder}/first.js").unlink()
    said = failing_restart(api, monkeypatch)
    assert client.asked[-1] == "restart api"
    assert [(folder / name).read_text() for name in ("first.js", "second.js", ".env")] == [
        "new",
        "old",
        "A=old-secret\n",
    ]
    assert f"could not be put back: {folder}/first.js: {backups.BACKUPS}/1{folder}/first.js is gone" in said


def test_what_took_too_long_is_not_tried_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """pm2 7.0 may still be at it, and would take the second for a start."""
    asked: list[str] = []

    def command(app: str, app_dir: str, *arguments: str, inherited: object) -> Done:
        del app, app_dir, inherited
        asked.append(" ".join(arguments))
        return Done(-9, b"", "pm2 did not end within 61.6 s")

    monkeypatch.setattr(pm2, "command", command)
    with pytest.raises(Failure, match=r"pm2 could not start api: pm2 did not end within 61\.6 s"):
        restart.restart("20260101T000000Z", api=api, keys=[])
    assert asked == ["restart api"]
