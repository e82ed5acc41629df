"""The API's process, found without pm2: by its pid files, and what the processes themselves say."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote import Failure, pm2, services
from remote.readings import Api
from tests.rehearsal.host import until
from tests.unit.conftest import ROOT
from tests.unit.remote.conftest import Start, free_port


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pm2/pids").mkdir(parents=True)
    monkeypatch.setenv("PM2_HOME", f"{tmp_path}/pm2")
    return tmp_path / "pm2"


@pytest.fixture
def app_dir(tmp_path: Path) -> Path:
    for file in (".env", "src/index.js", "src/api/a.js", "node_modules/p/package.json"):
        (tmp_path / "app" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "app" / file).write_text("{}")
    (tmp_path / "app/src/link.js").symlink_to("index.js")
    return tmp_path / "app"


def run_app(start: Start, home: Path, name: str, file: str, **env: str) -> int:
    """As pm2 does: an app's process, with its name in the environment, and its pid in a file."""
    pid = start("sleep", "60", env={"name": name, **env}).pid
    (home / "pids" / file).write_text(str(pid))
    return pid


def found(app: str) -> list[int]:
    return [process.pid for process in pm2.processes(app)]


def test_the_process_of_an_app(start: Start, home: Path) -> None:
    pid = run_app(start, home, "api", "api-0.pid")
    assert found("api") == [pid]
    assert pm2.processes("api")[0].id.split("/")[1] == str(pid)
    assert found("ap") == found("pi") == found("") == []


def test_names_that_are_prefixes_of_others(start: Start, home: Path) -> None:
    pids = {
        "api": run_app(start, home, "api", "api-3.pid"),
        "api-2": run_app(start, home, "api-2", "api-2-10.pid"),
        "api-worker": run_app(start, home, "api-worker", "api-worker-1.pid"),
    }
    assert {name: found(name) for name in pids} == {name: [pid] for name, pid in pids.items()}


@pytest.mark.parametrize(
    ("name", "file"), [("ai_admin", "ai-admin-0.pid"), ("ai.admin", "ai.admin-0.pid"), ("api-2", "api-10.pid")]
)
def test_a_name_that_pm2_makes_another_of(start: Start, home: Path, name: str, file: str) -> None:
    """pm2 7.0, lib/Common.js and lib/God.js: odd characters become hyphens, and the pm_id replaces a number."""
    assert found(name) == []
    pid = run_app(start, home, name, file)
    assert found(name) == [pid]
    assert found("api") == []


def test_a_pid_file_that_outlived_its_process(start: Start, home: Path) -> None:
    pid = run_app(start, home, "api", "api-0.pid")
    other = start("sleep", "60", env={"name": "other"}).pid
    (home / "pids/api-0.pid").write_text(str(other))  # the number is another's by now
    assert found("api") == []
    (home / "pids/api-1.pid").write_text(str(pid))  # and a later file is right
    assert found("api") == [pid]


def test_a_process_that_has_ended(start: Start, home: Path) -> None:
    child = start("sleep", "60", env={"name": "api"})
    (home / "pids/api-0.pid").write_text(str(child.pid))
    child.kill()
    child.wait()
    assert found("api") == []


@pytest.mark.parametrize("content", ["", "\n", "none", "../self", "99999999"])
def test_a_pid_file_with_something_else_in_it(home: Path, content: str) -> None:
    (home / "pids/api-0.pid").write_text(content)
    assert found("api") == []


def test_an_app_with_a_pid_file_of_its_own(start: Start, home: Path) -> None:
    """`pid_file` in the ecosystem file: pm2 7.0 writes it there, and not into its own folder."""
    daemon = start("env", "name=api", "sh", "-c", "sleep 60 & echo $!; exec env name=daemon sh -c 'sleep 60; true'")
    (home / "pm2.pid").write_text(str(daemon.pid))
    assert daemon.stdout
    app = int(daemon.stdout.readline())
    until(10, "its name", lambda: found("api") == [app])
    os.killpg(daemon.pid, signal.SIGKILL)


SERVER = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True);"


def test_a_child_of_the_app_holds_the_port(start: Start, home: Path) -> None:
    """`npm start`, or another that starts Node and stays."""
    npm = start("sh", "-c", f'{sys.executable} -S -c "{SERVER} time.sleep(60)"; true', env={"name": "api"})
    (home / "pids/api-0.pid").write_text(str(npm.pid))
    assert npm.stdout
    port = int(npm.stdout.readline())
    assert pm2.serves("api", port)
    other = run_app(start, home, "other", "other-1.pid")
    (home / "pids/api-0.pid").unlink()
    assert other and not pm2.serves("other", port)
    os.killpg(npm.pid, signal.SIGKILL)


def test_no_pm2_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PM2_HOME", "/nowhere")
    assert found("api") == []
    assert not pm2.daemon_runs("api")


def test_a_worker_in_cluster_mode(start: Start, home: Path) -> None:
    """pm2 7.0 passes it the app's record, with its name and its environment, as JSON."""
    record = {"name": "api", "JWT_SECRET": "x", "env": {"A": "b"}}
    workers = [start("sleep", "60", env={"PM2_HOME": str(home), "pm2_env": json.dumps(record)}).pid for _ in "12"]
    for number, pid in enumerate(workers):
        (home / f"pids/api-{number}.pid").write_text(str(pid))
    (home / "pids/other-3.pid").write_text(str(start("sleep", "60", env={"pm2_env": '{"name": "oth'}).pid))
    assert sorted(found("api")) == sorted(workers)


@pytest.mark.parametrize("cluster", [False, True])
def test_the_daemon_holds_the_port_in_cluster_mode_alone(start: Start, home: Path, cluster: bool) -> None:
    (home / "pm2.pid").write_text(str(os.getpid()))
    run_app(start, home, "api", "api-0.pid", **({"pm2_env": '{"name": "api"}'} if cluster else {}))
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert pm2.serves("api", server.getsockname()[1]) == cluster
    assert not pm2.serves("api", free_port())


# --- whose pm2


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A program that sleeps, in a folder that is on no PATH."""
    program = tmp_path / "nvm/node"
    program.parent.mkdir()
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    return program


@pytest.fixture
def hosts_pm2(start: Start, node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A pm2 of the host with its daemon; its home. `app` runs, `saved` is in its list."""
    monkeypatch.delenv("PM2_HOME", raising=False)

    def make(user: str, app: str = "", saved: str = "") -> Path:
        home = tmp_path / user
        (home / "pids").mkdir(parents=True)
        (home / "dump.pm2").write_text(json.dumps([{"name": saved}], indent=2))
        title = f"PM2 v7.0.4: God Daemon ({home})"
        daemon = start(
            "/bin/bash", "-c", f'exec -a "{title}" {node} 60', env={"PM2_HOME": str(home), "PATH": f"/{user}"}
        )
        while not Path(f"/proc/{daemon.pid}/cmdline").read_bytes().startswith(title.encode()):
            time.sleep(0.001)
        if app:
            run_app(start, home, app, f"{app}-0.pid")
        return home

    return make


def test_the_pm2_that_runs_the_app(hosts_pm2: Callable[..., Path], node: Path) -> None:
    hosts_pm2("a", app="other", saved="api")
    home = hosts_pm2("b", app="api")
    found = pm2.owner("api")
    assert found.home == str(home)
    assert found.path == f"{node.parent}:/b:{os.environ['PATH']}"
    assert [each.pid for each in pm2.processes("api")] == [int((home / "pids/api-0.pid").read_text())]
    assert pm2.owner("other").home != str(home)


def test_the_pm2_that_has_saved_the_app(hosts_pm2: Callable[..., Path], tmp_path: Path) -> None:
    """Where it does not run. Then the one that boot would start comes before another that happens to run."""
    hosts_pm2("a", app="other", saved="other")
    assert pm2.owner("api").home == f"{tmp_path}/a"
    pm2.owner.cache_clear()
    unit = tmp_path / "boot/pm2-root.service"
    unit.parent.mkdir()
    unit.write_text(f"[Service]\nUser=root\nEnvironment=PATH=/c:/bin\nEnvironment=PM2_HOME={tmp_path}/c\n")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/dump.pm2").write_text('[\n  {\n    "name": "api"\n')
    assert pm2.owner("api") == pm2.Owner("root", f"{tmp_path}/c", f"/c:/bin:{os.environ['PATH']}")
    pm2.owner.cache_clear()
    hosts_pm2("d", saved="api")
    assert pm2.owner("api").home == f"{tmp_path}/d"


@pytest.mark.parametrize("has", [{"app": "api"}, {"saved": "api"}, {}])
def test_two_that_may_run_the_app(
    hosts_pm2: Callable[..., Path], tmp_path: Path, has: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts_pm2("a", **has)
    hosts_pm2("b", **has)
    with pytest.raises(
        Failure, match=r"more than one pm2 may run api: \w+ \(.*/a\), \w+ \(.*/b\); take it out"
    ) as failure:
        pm2.processes("api")
    assert "\n" not in str(failure.value)
    monkeypatch.setenv("PM2_HOME", f"{tmp_path}/b")
    assert pm2.owner("api").home == f"{tmp_path}/b"


def test_no_pm2_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PM2_HOME", raising=False)
    own = pwd.getpwuid(os.geteuid())
    assert pm2.owner("api") == pm2.Owner(own.pw_name, f"{own.pw_dir}/.pm2", os.environ["PATH"])


def test_daemon_runs(start: Start, home: Path, node: Path) -> None:
    """The number in an old file may be another program's; the daemon is a node."""
    (home / "pm2.pid").write_text(str(start("sleep", "60").pid))
    assert not pm2.daemon_runs("api")
    (home / "pm2.pid").write_text(str(start(str(node), "60").pid))
    time.sleep(0.05)
    assert pm2.daemon_runs("api")


@pytest.mark.parametrize("instances", [1, 2])
def test_its_error_logs(start: Start, home: Path, tmp_path: Path, instances: int) -> None:
    logs = [str(tmp_path / f"error-{number}.log") for number in range(instances)]
    for number, log in enumerate(logs):
        Path(log).write_text("ab")
        run_app(start, home, "api", f"api-{number}.pid", pm_err_log_path=log)
    assert pm2.error_logs("api") == dict.fromkeys(logs, 2)
    Path(logs[-1]).unlink()
    assert pm2.error_logs("api") == {}, "a log that is taken away, or /dev/null, is silent whatever is said"
    assert pm2.error_logs("of nobody") == {}


def test_files_read_at_start(app_dir: Path) -> None:
    read = pm2.files_read_at_start(str(app_dir), ["p", "@s/q"])
    modules = ("node_modules/.package-lock.json", "node_modules/p/package.json", "node_modules/@s/q/package.json")
    expected = {f"{app_dir}/{file}" for file in (".env", *modules, "src/index.js", "src/api/a.js")}
    assert {*read} == expected
    assert len(read) == len(expected)


# --- read


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for pm2's command: prints what is in this file, and writes down how it was called."""
    program = tmp_path / "bin/pm2"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\nenv >> {tmp_path}/called\ncat {tmp_path}/list\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path / "list"


def read(app_dir: Path, app: str = "api", port: int = 0) -> Any:
    api: Api = {
        "app": app,
        "app_dir": str(app_dir),
        "port": port or free_port(),
        "packages": ["p"],
        "start_timeout": 1,
        "settle_time": 0,
    }
    return pm2.read(api=api, keys=["JWT_SECRET", "APP_ID", "A"])


@pytest.mark.usefixtures("client")
def test_a_port_that_another_process_holds(start: Start, home: Path, app_dir: Path) -> None:
    """Found before anything is changed, and told without its arguments, which may hold a secret."""
    program = (
        "import socket, sys; s = socket.create_server(('', 0)); print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    other = start(sys.executable, "-S", "-c", program, "--token=x")
    assert other.stdout
    port = int(other.stdout.readline())
    user, name = pwd.getpwuid(os.geteuid()).pw_name, Path(sys.executable).resolve().name
    with pytest.raises(Failure, match=r"^pm2 says no daemon, but port") as failure:
        read(app_dir, port=port)
    assert f"port {port} is held by {name} (pid {other.pid}, user {user}" in str(failure.value)
    assert f"which is not api of {user} ({home})" in str(failure.value)
    assert "token" not in str(failure.value)


ENDING = "it has 1.6 s (kill_timeout) to finish what it began, then it is killed"
EXITED = "2026-11-24T06:22:19: PM2 log: App [%s:0] exited with code [0] via signal [%s]\n"


def test_a_damaged_list_is_no_reason_to_stop(tmp_path: Path) -> None:
    for damaged in ('[{"name": "api", ', '{"name": "api"}', '["api"]', '[{"name": "api", "kill_timeout": "long"}]'):
        (tmp_path / "dump.pm2").write_text(damaged)
        assert pm2.ending(str(tmp_path), "api") == ENDING


@pytest.mark.parametrize(
    ("dump", "log", "says"),
    [
        (None, "", "it has 1.6 s .* then it is killed"),
        ([{"name": "other", "kill_timeout": 9000}, {"name": "api"}], EXITED % ("other", "SIGKILL"), "1.6 s .* it is k"),
        ([{"name": "api", "kill_timeout": 9500}], EXITED % ("api", "SIGINT"), "it has 9.5 s .* then it is killed"),
        ([], EXITED % ("api", "SIGINT") + EXITED % ("api", "SIGKILL"), "the last time it had to be killed"),
        ([], EXITED % ("api", "SIGKILL") + EXITED % ("api", "SIGINT"), "then it is killed"),
    ],
)
def test_how_it_will_end(tmp_path: Path, dump: object, log: str, says: str) -> None:
    if dump is not None:
        (tmp_path / "dump.pm2").write_text(json.dumps(dump))
    (tmp_path / "pm2.log").write_text(log)
    assert re.search(says, pm2.ending(str(tmp_path), "api"))


@pytest.mark.usefixtures("home", "client")
def test_a_port_that_the_app_itself_opens_just_now(app_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [True, False]
    monkeypatch.setattr(pm2, "serves", lambda *_: answers.pop())
    monkeypatch.setattr(pm2, "holder", lambda _: "1")
    monkeypatch.setattr(pm2, "reached", lambda _: True)
    assert read(app_dir)["status"] == "no daemon"


def test_read_a_running_one_without_asking_pm2(start: Start, home: Path, app_dir: Path, client: Path) -> None:
    time.sleep(0.06)  # by more than the clock's 20 ms younger than its files
    run_app(start, home, "api", "api-0.pid", JWT_SECRET="", APP_IDS="1", X="A=1")
    time.sleep(0.02)
    (app_dir / "ecosystem.json").write_text('{"apps": [{"name": "api"}]}')
    found = read(app_dir)
    assert found.pop("held_in").endswith("/environ")
    assert found == {
        "status": "silent",
        "stale": False,
        "shadowed": ["JWT_SECRET"],
        "fixed": [],
        "held": [],
        "folder": "",
        "ending": ENDING,
    }

    time.sleep(0.06)
    (app_dir / "src/api/a.js").write_text("// new")
    assert read(app_dir)["stale"]
    assert not (client.parent / "called").exists()


@pytest.mark.usefixtures("client")
def test_what_speaks_against_one_that_runs(
    start: Start, home: Path, app_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that dies between a token's writing and its restart: systemd starts the API on it, and it ends of it."""
    monkeypatch.setattr(services, "STATE", f"{tmp_path}/state")
    run_app(start, home, "api", "api-0.pid")
    assert read(app_dir)["status"] == "silent"
    monkeypatch.setattr(pm2, "serves", lambda *_: True)
    monkeypatch.setattr(pm2, "reached", lambda _: True)
    assert read(app_dir)["status"] == "online"
    for deploy_wrote in (False, True):
        kept = {"/app/.env": {"deploy": "1", "app": "api", "undoes": "", "kept": None, "wrote": None}}
        services.save_note(services.of("api"), {"processes": ["before"], "files": kept if deploy_wrote else {}})
        assert read(app_dir)["status"] == ("unproved" if deploy_wrote else "online")
    monkeypatch.setattr(services, "PROVED", 0)
    assert read(app_dir)["status"] == "online"


@pytest.mark.usefixtures("client")
def test_a_value_that_is_the_same_hides_nothing(start: Start, home: Path, app_dir: Path) -> None:
    """An ecosystem file may begin with `require('dotenv').config()`: started anew it would have them all again."""
    (app_dir / "ecosystem.config.cjs").write_text(
        "process.env.A = 'of .env'; module.exports = {apps: [{name: 'api', env: {...process.env, B: 1}}]};"
    )
    (app_dir / ".env").write_text("A='of .env'\nAPP_ID=2\n")
    run_app(start, home, "api", "api-0.pid", A="of .env", APP_ID="1")
    assert read(app_dir)["shadowed"] == ["APP_ID"]
    (app_dir / ".env").write_text("A='of .env'\nAPP_ID=1\n")
    assert read(app_dir)["shadowed"] == []


@pytest.mark.usefixtures("client")
def test_what_pm2_has_a_value_for(start: Start, home: Path, app_dir: Path) -> None:
    (app_dir / "ecosystem.json").write_text('{"name": "api"}')
    (app_dir / ".env").write_text("APP_ID=1\nA=\n")
    (home / "dump.pm2").write_text('[{"name": "api", "env": {"APP_ID": 3, "A": ""}}, {"name": "b", "A": "b"}]')
    assert (read(app_dir)["held"], read(app_dir)["held_in"]) == (["APP_ID"], f"{home}/dump.pm2")
    (app_dir / ".env").write_text("APP_ID=3\nA=\n")
    assert read(app_dir)["held"] == [], "it stands in .env too: an ecosystem file may load that"
    (app_dir / ".env").write_text("APP_ID=1\nA=\n")
    run_app(start, home, "api", "api-0.pid", A="a", APP_ID="2", **{"JWT_SECRET": " "})
    found = read(app_dir)
    assert (found["shadowed"], found["held"]) == (["JWT_SECRET", "APP_ID", "A"], ["APP_ID", "A"])
    (app_dir / "ecosystem.json").write_text('{"name": "api", "env": {"A": "a"}}')
    with pytest.raises(Failure, match=r"ecosystem.json sets A for api, and .env has no value for it: move it there"):
        read(app_dir)


@pytest.mark.usefixtures("client")
def test_where_it_runs(start: Start, home: Path, app_dir: Path, tmp_path: Path) -> None:
    """pm2 may start it elsewhere, and a script of its own bring it there; or its folder was replaced, as by a link."""
    (tmp_path / "current").symlink_to(app_dir)
    run_app(start, home, "api", "api-0.pid", pm_cwd=str(tmp_path / "current"))
    assert read(app_dir)["folder"] == ""
    run_app(start, home, "api", "api-0.pid", pm_cwd=str(tmp_path))
    assert read(app_dir)["folder"] == str(ROOT)
    moved = start("sh", "-c", f"cd {app_dir}; echo there; exec sleep 60", env={"name": "api", "pm_cwd": str(tmp_path)})
    assert moved.stdout and moved.stdout.readline()
    (home / "pids/api-0.pid").write_text(str(moved.pid))
    assert read(app_dir)["folder"] == ""


@pytest.mark.usefixtures("client")
def test_what_the_ecosystem_file_says_itself(start: Start, home: Path, app_dir: Path) -> None:
    """The plan refuses a new value for it; what follows .env is none of these."""
    sets = "A: 'old', APP_ID: process.env.APP_ID, JWT_SECRET: 'same'"
    (app_dir / "ecosystem.config.js").write_text(f"module.exports = [{{name: 'api', env: {{{sets}}}}}];")
    (app_dir / ".env").write_text("A=old\nAPP_ID=1\nJWT_SECRET=same\n")
    run_app(start, home, "api", "api-0.pid", A="old", APP_ID="1")
    found = read(app_dir)
    assert (found["shadowed"], found["fixed"]) == ([], ["A"])
    (app_dir / "ecosystem.config.js").write_text("module.exports = {")
    assert read(app_dir)["fixed"] == [], "it is not needed now"


@pytest.mark.usefixtures("client")
def test_numbers_of_cluster_mode(start: Start, home: Path, app_dir: Path) -> None:
    """pm2 7.0 passes them as JSON."""
    (app_dir / "ecosystem.json").write_text('{"name": "api", "env": {"APP_ID": 18289}, "env_x": {"PORT": 3000}}')
    (app_dir / ".env").write_text("APP_ID=18289\n")
    record = json.dumps({"name": "api", "APP_ID": 18289, "PORT": 3000, "A": True})
    run_app(start, home, "api", "api-0.pid", pm2_env=record)
    assert pm2.hidden("api", str(app_dir), ["APP_ID"]) == []
    assert pm2.anew("api", str(app_dir))[0][-2:] == ["--env", "x"]


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(
    ("ecosystem", "said"),
    [
        (("other.js", ""), "ecosystem.config.js is missing"),
        (("ecosystem.config.cjs", "module.exports = {"), "ecosystem.config.cjs does not load: SyntaxError"),
        (("ecosystem.config.js", "module.exports = [{name: 'b'}];"), "ecosystem.config.js has no app of this name"),
        (("ecosystem.json", '{"name": "api", "env_x": {"A": "a", "C": 1}}'), "ecosystem.json sets A for api"),
    ],
)
def test_what_cannot_be_started_anew_is_refused_before_anything_is_changed(
    start: Start, home: Path, app_dir: Path, ecosystem: tuple[str, str], said: str
) -> None:
    (app_dir / ecosystem[0]).write_text(ecosystem[1])
    run_app(start, home, "api", "api-0.pid", A="a", C="1")
    with pytest.raises(Failure, match=rf"/{re.escape(said)}"):
        read(app_dir)


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"NODE_ENV": "production", "X": "1"}, ["--env", "production"]),
        ({"NODE_ENV": "production", "X": "1", "Y": "2"}, ["--env", "more"]),
        ({"NODE_ENV": "development"}, []),
        ({"NODE_ENV": "production"}, []),
    ],
)
def test_it_is_started_anew_with_the_environment_that_it_has(
    start: Start, home: Path, app_dir: Path, env: dict[str, str], words: list[str]
) -> None:
    """`pm2 start ecosystem.config.js --env production`, which pm2 7.0 keeps no note of."""
    production = "NODE_ENV: 'production', X: 1"
    sets = f"env: {{NODE_ENV: 'development'}}, env_production: {{{production}}}, env_more: {{{production}, Y: 2}}"
    (app_dir / "ecosystem.config.js").write_text(f"module.exports = [{{name: 'api', {sets}}}];")
    run_app(start, home, "api", "api-0.pid", **env)
    assert pm2.anew("api", str(app_dir))[0] == ["start", "ecosystem.config.js", "--only", "api", *words]


@pytest.mark.usefixtures("client")
def test_read_one_that_we_started(start: Start, home: Path, app_dir: Path) -> None:
    run_app(start, home, "api", "api-0.pid")
    files = pm2.files_read_at_start(str(app_dir), ["p"])
    services.after_start("app-api", pm2.processes("api"), services.fingerprint(files))
    assert not read(app_dir)["stale"]
    (app_dir / "src/api/new.js").write_text("")
    assert read(app_dir)["stale"]


@pytest.mark.usefixtures("home")
def test_read_without_a_daemon(home: Path, app_dir: Path, client: Path) -> None:
    assert read(app_dir) == {**pm2.STOPPED, "status": "no daemon", "held_in": f"{home}/dump.pm2"}
    assert not (client.parent / "called").exists()  # pm2's command would start one


LIST = """[PM2] Spawning PM2 daemon
[PM2] PM2 Successfully daemonized
[{"name": "api", "pm2_env": {"status": "errored"}}, {"name": "other", "pm2_env": {"status": "online"}}]
"""


def test_read_one_that_does_not_run(home: Path, app_dir: Path, client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pm2, "daemon_runs", bool)
    monkeypatch.setenv("JWT_SECRET", "of the operator's shell")
    client.write_text(LIST)
    assert read(app_dir) == {**pm2.STOPPED, "status": "errored", "held_in": f"{home}/dump.pm2"}
    assert read(app_dir, "nobody") == {**pm2.STOPPED, "status": "unknown", "held_in": f"{home}/dump.pm2"}
    called = (client.parent / "called").read_text()
    assert called.startswith("jlist\n")
    assert f"PM2_HOME={home}" in called
    assert "JWT_SECRET" not in called  # it would be in pm2's record of the app


@pytest.mark.usefixtures("home")
def test_pm2_is_not_installed(app_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("node", "npm"):
        (app_dir / program).touch(0o755)
    monkeypatch.setenv("PATH", str(app_dir))
    with pytest.raises(Failure, match="pm2 is not installed: npm install --global pm2"):
        read(app_dir)
    pm2.owner.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Failure, match="node is not installed"):
        read(app_dir)


@pytest.mark.usefixtures("home", "client")
def test_one_that_listens_where_nginx_will_not_ask(app_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Node's `listen(3000, 'localhost')` where localhost is ::1 first. nginx had tried both."""
    monkeypatch.setattr(pm2, "serves", lambda *_: True)
    port = free_port()
    said = rf"^api listens only on ::1, but nginx asks 127\.0\.0\.1:{port}: make it listen there too$"
    with socket.create_server(("::1", port), family=socket.AF_INET6), pytest.raises(Failure, match=said):
        read(app_dir, port=port)


def test_a_suspended_daemon_is_not_asked(start: Start, home: Path, app_dir: Path, client: Path) -> None:
    """It would not answer, and all requests would wait for it."""
    node = start("node", "-e", "setInterval(() => {}, 1000)")
    (home / "pm2.pid").write_text(str(node.pid))
    node.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, node.pid, os.WSTOPPED)  # until it is
    with pytest.raises(Failure, match=rf"pm2's daemon is suspended by a signal, .*: kill -CONT {node.pid}$"):
        read(app_dir)
    assert not (client.parent / "called").exists()


def test_what_it_inherits_from_an_earlier_start(home: Path, app_dir: Path) -> None:
    """All that its shell left, but for the keys that are to come from .env; and pm2 is still found."""
    shell = {"NODE_ENV": "production", "PWD": "/root", "PATH": "/opt/own:/usr/bin"}
    left = {**shell, "JWT_SECRET": "x", "PORT": "1", "axm": {}}
    saved = [{"name": "api", "env": left}, {"name": "other", "env": {"OTHER": "1"}}]
    (home / "dump.pm2").write_text(json.dumps(saved))
    (app_dir / ".env").write_text("PORT=3000\n")
    found = pm2.inherited("api", str(app_dir), ["JWT_SECRET"])
    path = found.pop("PATH")
    assert found == {"NODE_ENV": "production", "PM2_HOME": str(home)}
    assert path.split(":")[-1] == "/opt/own" and path.count("/usr/bin:") == 1
    (home / "dump.pm2").write_text("[]")
    assert pm2.inherited("api", str(app_dir), []).keys() == {"PATH", "PM2_HOME"}


def test_its_command_has_the_time_that_the_app_has_to_end(
    home: Path, app_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    monkeypatch.setattr(pm2, "run_clean", lambda *_, timeout, **__: given.append(timeout))
    (home / "dump.pm2").write_text('[{"name": "api", "kill_timeout": 90000}]')
    pm2.command("api", str(app_dir), "restart", "api")
    assert given == [150]
