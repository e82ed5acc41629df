"""The API's processes under pm2 (7.0), and whose pm2 that is: found by pid files and /proc, not by pm2's command."""

import json
import os
import pwd
import re
from collections import namedtuple
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from remote import Failure, dotenv, files, services
from remote.processes import (
    Done,
    Process,
    environment,
    holder,
    identify,
    is_below,
    is_of_this_host,
    is_suspended,
    listens,
    reached,
    require,
    run,
    user_of,
)
from remote.readings import Api, Running

BOOT = "/etc/systemd/system/multi-user.target.wants"  # where `pm2 startup` enables a pm2-<user>.service
ECOSYSTEM = ("ecosystem.config.js", "ecosystem.config.cjs", "ecosystem.json")
NEVER = "so the value in .env is never used: remove it from the ecosystem file"
MOVE = "and .env has no value for it: move it there from the ecosystem file"
PROBE = "ai-admin-deploy"  # what no key is set to
KILL_TIMEOUT = 1600  # ms, where the app has none of its own (pm2 7.0: constants.js)
STOPPED: Running = {
    "status": "stopped",
    "stale": True,
    "shadowed": [],
    "fixed": [],
    "held": [],
    "held_in": "",
    "folder": "",
    "ending": "",
}
_DAEMON = re.compile(r"PM2 v\S+: God Daemon \(")  # what a daemon calls itself, before its PM2_HOME


class Owner(namedtuple("Owner", ("user", "home", "path"))):
    """Whose pm2 it is. `path` is a PATH with the Node that its daemon, and the app, run on in front."""

    def __str__(self) -> str:
        return f"{self.user} ({self.home})"

    @property
    def ids(self) -> tuple[int, int]:
        """Of its user and group."""
        return pwd.getpwnam(self.user)[2:4]

    @property
    def environment(self) -> dict[str, str]:
        """What makes a program run as its own."""
        home = pwd.getpwnam(self.user).pw_dir
        return {"PATH": self.path, "HOME": home, "USER": self.user, "LOGNAME": self.user, "PM2_HOME": self.home}


@cache
def owner(app: str) -> Owner:
    """Whose pm2 runs the app, or would start it. Raises Failure where that cannot be told."""
    running, booted, own = _running(), _at_boot(), os.environ.get("PM2_HOME")

    def saved(owners: Sequence[Owner]) -> list[Owner]:
        return [each for each in owners if f'"name": "{app}"' in files.read_text(f"{each.home}/dump.pm2")]

    if own:  # somebody said which: `_env` in the inventory, or the host's own settings
        known = [*running, *booted, Owner(user_of(own), own, "")]
        found = [each for each in known if each.home == own][:1]
    else:
        serving = [each for each in running if _pids(each.home, app)]
        found = serving or saved(running) or saved(booted) or running or booted
    if len(found) > 1:
        remedy = f"take it out of the wrong one (`pm2 delete {app}; pm2 save`), or set _env PM2_HOME in the inventory"
        raise Failure(f"more than one pm2 may run {app}: {', '.join(map(str, found))}; {remedy}")
    own_name, own_folder = pwd.getpwuid(os.geteuid())[0:6:5]
    user, home, path = found[0] if found else (own_name, f"{own_folder}/.pm2", "")
    folders = [_folder_of_node(pid) for pid in _pids(home, app)[:1]]
    return Owner(user, home, ":".join(filter(None, [*folders, path, os.environ["PATH"]])))


def _running() -> list[Owner]:
    """By the daemons' processes. A container's are not ours: their root is another folder."""
    found = {}
    for pid in files.names("/proc"):
        if pid.isdigit() and _DAEMON.match(files.read_text(f"/proc/{pid}/cmdline")) and is_of_this_host(pid):
            variables = _variables(pid)
            home = variables.get("PM2_HOME", "")
            path = f"{_folder_of_node(pid)}:{variables.get('PATH', '')}"
            found[home] = Owner(user_of(f"/proc/{pid}"), home, path)
    return list(found.values())


def _at_boot() -> list[Owner]:
    """By the units that `pm2 startup` made and enabled."""
    found = []
    for name in files.names(BOOT):
        unit = files.read_text(f"{BOOT}/{name}") if name.startswith("pm2-") else ""
        lines = dict(line.removeprefix("Environment=").partition("=")[::2] for line in unit.splitlines())
        if "PM2_HOME" in lines:
            found.append(Owner(lines.get("User", "root"), lines["PM2_HOME"], lines.get("PATH", "")))
    return found


def _folder_of_node(pid: int | str) -> str:
    folder, program = os.path.split(files.link(f"/proc/{pid}/exe"))
    return folder if program.startswith("node") else ""


def _variables(pid: int | str) -> Mapping[str, Any]:
    """What a process was started with. In cluster mode a worker gets it as JSON (7.0: lib/God/ClusterMode.js)."""
    found: dict[str, Any] = dict(line.partition("=")[::2] for line in environment(pid))
    with suppress(ValueError):
        record = json.loads(found.get("pm2_env", "{}"))
        found.update({key: own if isinstance(own, str) else json.dumps(own) for key, own in record.items()})
    return found


def processes(app: str) -> list[Process]:
    """The app's running processes: by pm2's pid files and the name in their environment. Several in cluster mode.

    A file's name says less: pm2 makes `a_b` and `a-2` into `a-b-<pm_id>.pid` and `a-<pm_id>.pid` (7.0: lib/Common.js,
    lib/God.js). And it outlives its process, whose number another may have by now.
    """
    found = map(identify, _pids(owner(app).home, app))
    return [process for process in found if process]


def _pids(home: str, app: str) -> list[str]:
    pids = {files.read_text(f"{home}/pids/{name}") for name in files.names(f"{home}/pids") if name.endswith(".pid")}
    daemon = files.read_text(f"{home}/pm2.pid")
    pids |= {*files.read_text(f"/proc/{daemon}/task/{daemon}/children").split()}  # `pid_file` is wherever the app says
    return [pid for pid in sorted(pids) if _variables(pid).get("name") == app]


def error_logs(app: str) -> dict[str, int]:
    """How long its error logs are, in bytes; empty where that says nothing: it does not run, or logs to no file."""
    with suppress(OSError):
        paths = [str(_variables(process.pid).get("pm_err_log_path")) for process in processes(app)]
        return {path: os.path.getsize(path) for path in paths} if all(map(os.path.isfile, paths)) else {}
    return {}


def serves(app: str, port: int) -> bool:
    """Does the app hold the listening port? Another one's answer on it would prove nothing.

    In cluster mode its daemon holds the port, and hands the connections on to the workers. Of `npm start` a child does.
    """
    pids = [process.pid for process in processes(app)]
    if any("pm2_env" in _variables(pid) for pid in pids):
        pids.append(int(files.read_text(f"{owner(app).home}/pm2.pid") or 0))
    return any(listens(pid, port) for pid in pids) or bool(pids and (at := holder(port)) and is_below(at, pids))


def daemon_runs(app: str) -> bool:
    """By its pid file, which may be an old one: the process must at least be a node."""
    return bool(_folder_of_node(files.read_text(f"{owner(app).home}/pm2.pid")))


def command(app: str, app_dir: str, *arguments: str, inherited: Mapping[str, str] | None = None) -> Done:
    """pm2's own: what is in its environment when an app is started stays in pm2's record of the app."""
    timeout = 60 + kill_timeout(owner(app).home, app)
    return run_clean(app, "pm2", *arguments, inherited=inherited, cwd=app_dir, timeout=timeout)


def run_clean(app: str, *program: str, inherited: Mapping[str, str] | None = None, **options: Any) -> Done:
    """As `run_node`, with what is `inherited` in place of our own environment, which is not the application's."""
    env = {**owner(app).environment, "LANG": "C.UTF-8", **(inherited or {})}
    return run(*program, env=env, user=owner(app).user, **options)


def run_node(app: str, *program: str, **options: Any) -> Done:
    """`run` for node and npm: the Node that the app runs on, as the user who runs it."""
    return run(*program, env={**os.environ, **owner(app).environment}, user=owner(app).user, **options)


def apps(app: str, app_dir: str) -> list[dict[str, Any]]:
    """Its pm2's list, which holds secrets. What the client says of a new daemon comes before it. Raises Failure."""
    listed = command(app, app_dir, "jlist")
    if listed.status != 0:
        raise Failure(f"pm2 does not answer: {listed.line_with('Error')}")
    text = listed.stdout.decode(errors="replace")
    try:
        found: list[dict[str, Any]] = json.loads(text[text.rfind("\n[") + 1 :])
    except ValueError:
        raise Failure("pm2 does not print its list") from None
    return found


def known(app: str, app_dir: str) -> dict[str, Any] | None:
    """pm2's own record of the app, of which `status` and `pm_err_log_path` are used. Raises Failure."""
    return next((each["pm2_env"] for each in apps(app, app_dir) if each["name"] == app), None)


def ecosystem(app: str, app_dir: str, keys: Sequence[str] = ()) -> tuple[str, dict[str, dict[str, str]]]:
    """The file that names the app, and the variables that it sets: under "", and what `--env NAME` adds under NAME.
    Those of `keys` that it takes from its own environment, as from a .env that it loads, are PROBE. Raises Failure, and
    where it has no such app."""
    file = next((each for each in ECOSYSTEM if os.path.exists(f"{app_dir}/{each}")), ECOSYSTEM[0])
    if not os.path.exists(f"{app_dir}/{file}"):
        raise Failure(f"{app_dir}/{file} is missing")
    # pm2 7.0 takes `apps`, `pm2` or the whole, a list or a single one (lib/API.js)
    script = f"""for (const key of {json.dumps([*keys])}) process.env[key] = '{PROBE}';
        const c = require('./{file}'); const list = [c.apps || c.pm2 || c].flat();
        const texts = (all) => Object.fromEntries(Object.entries(all || {{}}).map(([key, own]) => [key, String(own)]));
        const sets = (app) => Object.entries(app).filter(([key]) => /^env(_|$)/.test(key));
        const own = (app) => Object.fromEntries(sets(app).map(([key, all]) => [key.slice(4), texts(all)]));
        console.log('\\n' + JSON.stringify(list.map((app) => [app.name, own(app)])))"""
    done = run_node(app, "node", "-e", script, cwd=app_dir)
    if done.status != 0:
        raise Failure(f"{app_dir}/{file} does not load: {done.line_with('Error')}")
    known: dict[str, dict[str, dict[str, str]]] = dict(json.loads(done.stdout.splitlines()[-1]))
    if app not in known:
        raise Failure(f"{app_dir}/{file} has no app of this name")
    return file, known[app]


def anew(app: str, app_dir: str, keys: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """The command's words that start the app from its ecosystem file, and the variables that it then gets from there,
    see `ecosystem`: with `--env` as the one that runs was started (pm2 7.0 keeps no note of it). Raises Failure."""
    file, sets = ecosystem(app, app_dir, keys)
    started = _started(app)

    def is_in(name: str) -> bool:
        return bool(sets[name]) and any(sets[name].items() <= each.items() for each in started)

    name = max((each for each in sets if each and is_in(each)), key=lambda each: len(sets[each]), default="")
    words = ["start", file, "--only", app, *(["--env", name] if name else [])]
    return words, {**sets.get("", {}), **sets.get(name, {})}


def hidden(app: str, app_dir: str, keys: Sequence[str]) -> list[str]:
    """Keys that the app's first environment has with another value than its .env, and that one wins (dotenv 17).

    With the same value it hides nothing: an ecosystem file may load .env itself.
    """
    return _hidden(_started(app), dotenv.load(f"{app_dir}/.env"), keys)


def _hidden(started: Sequence[Mapping[str, str]], env: Mapping[str, str], keys: Sequence[str]) -> list[str]:
    return [key for key in keys if any(key in each and each[key] != env.get(key) for each in started)]


def _started(app: str) -> list[Mapping[str, str]]:
    """What each of its processes was started with."""
    return [_variables(process.pid) for process in processes(app)]


def files_read_at_start(app_dir: str, packages: Sequence[str]) -> list[str]:
    """What the API reads when it starts and somebody may change: .env, packages, source."""
    modules = f"{app_dir}/node_modules"
    own = [f"{app_dir}/.env", f"{modules}/.package-lock.json", *(f"{modules}/{each}/package.json" for each in packages)]
    return own + files.below(f"{app_dir}/src")


def kill_timeout(home: str, app: str) -> float:
    """Seconds that pm2 gives the app to end, before it kills it."""
    with suppress(ValueError, TypeError):
        own = next((each.get("kill_timeout") for each in saved(home) if each["name"] == app), None)
        return int(own or KILL_TIMEOUT) / 1000
    return KILL_TIMEOUT / 1000


def saved(home: str) -> list[dict[str, Any]]:
    """What pm2 starts at the next boot; empty for half of a list, in which it was killed: no reason to stop."""
    with suppress(ValueError, TypeError, AttributeError):
        found = json.loads(files.read(f"{home}/dump.pm2") or b"[]")
        return [each for each in found if each.get("name")]
    return []


def inherited(app: str, app_dir: str, keys: Sequence[str]) -> dict[str, str]:
    """What the shell that started the app, and its ecosystem file of then, left in its environment, by pm2's saved
    record of it: NODE_ENV, say, where that stands nowhere else. Not `keys`, what .env says, or that shell's folders."""
    own = owner(app)
    record: dict[str, Any] = next((each.get("env", {}) for each in saved(own.home) if each["name"] == app), {})
    not_theirs = {*keys, *dotenv.load(f"{app_dir}/.env"), "PWD", "OLDPWD"}
    found = {name: value for name, value in record.items() if isinstance(value, str) and name not in not_theirs}
    path = dict.fromkeys([*own.path.split(":"), *found.get("PATH", "").split(":")])
    return {**found, "PATH": ":".join(filter(None, path)), "PM2_HOME": own.home}


def ending(home: str, app: str) -> str:
    """How its processes end when pm2 (7.0) restarts it: by SIGINT, and after `kill_timeout` by SIGKILL."""
    seconds = kill_timeout(home, app)
    ends = re.findall(rf"App \[{re.escape(app)}:\d+\] exited .* signal \[(\w+)\]", files.tail(f"{home}/pm2.log"))
    how = "and the last time it had to be killed" if ends[-1:] == ["SIGKILL"] else "then it is killed"
    return f"it has {seconds:g} s (kill_timeout) to finish what it began, {how}"


def read(*, api: Api, keys: Sequence[str]) -> Running:
    """Only when the app does not run is pm2 asked why: its command starts a daemon where there is none.

    Raises Failure where a restart could only do harm: another process holds the port, 127.0.0.1 does not lead there,
    pm2's daemon is suspended, or the app cannot read its .env.
    """
    app, app_dir, port = api["app"], api["app_dir"], api["port"]
    found = owner(app)
    daemon = files.read_text(f"{found.home}/pm2.pid")
    if daemon_runs(app) and is_suspended(daemon):
        raise Failure(f"pm2's daemon is suspended by a signal, and would not answer: kill -CONT {daemon}")
    require("node", "npm", "pm2", path=found.path)
    running = processes(app)
    status = "online"
    if not running:
        status = (known(app, app_dir) or {"status": "unknown"})["status"] if daemon_runs(app) else "no daemon"
    is_serving = serves(app, port)
    if not is_serving and (other := holder(port)):
        is_serving = serves(app, port)  # one that has just started may have opened its port in between
        if not is_serving:
            cause = f"but port {port} is held by {_told(other)}, which is not {app} of {found}"
            remedy = "let that pm2 run it, or correct api_app, api_port or _env PM2_HOME"
            raise Failure(f"pm2 says {status}, {cause}; {remedy}")
    if is_serving and not reached(port):
        raise Failure(f"{app} listens only on ::1, but nginx asks 127.0.0.1:{port}: make it listen there too")
    env, is_another = f"{app_dir}/.env", found.ids[0] != os.geteuid()
    if is_another and os.path.exists(env) and run("test", "-r", env, user=found.user).status != 0:
        raise Failure(f"{env} cannot be read by {found.user}, who runs {app}: chown {found.user} {env}")
    if not running:
        saved_ones = [{**each, **each.get("env", {})} for each in saved(found.home) if each["name"] == app]
        records = [{key: str(own) for key, own in each.items()} for each in saved_ones]
        held = _held(records, _hidden(records, dotenv.load(env), keys))
        return {**STOPPED, "status": status, "held": held, "held_in": f"{found.home}/dump.pm2"}
    started, values, sets = _started(app), dotenv.load(env), dict[str, str]()
    shadowed = _hidden(started, values, keys)
    present = [key for key in keys if any(key in each for each in started)]
    if present:  # Node's 60 ms, only then
        try:
            words, sets = anew(app, app_dir, present)
        except Failure as error:
            which = f"pm2's own environment overrides {', '.join(shadowed)} of .env, so {app} must be started anew"
            if shadowed:
                raise Failure(f"{which}, and {error}") from None
    fixed = [key for key in present if sets.get(key, PROBE) != PROBE]
    if own := [key for key in shadowed if key in fixed and sets[key] != values.get(key)]:
        remedy = NEVER if any(map(values.get, own)) else MOVE
        raise Failure(f"{app_dir}/{words[1]} sets {', '.join(own)} for {app}, {remedy}")
    stale = services.is_stale(services.of(app), running, files_read_at_start(app_dir, api["packages"]))
    how = ending(found.home, app)
    doubt = _doubt(app, running, is_serving)
    return {
        "status": doubt or status,
        "stale": stale,
        "shadowed": shadowed,
        "fixed": fixed,
        "held": _held(started, shadowed),
        "held_in": f"/proc/{running[0].pid}/environ",
        "folder": _other_folder(running, app_dir),
        "ending": how,
    }


def _held(records: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """The keys that pm2 has a value for."""
    return [key for key in keys if any(str(each.get(key, "")).strip() for each in records)]


def _other_folder(running: Sequence[Process], app_dir: str) -> str:
    """Where it runs and pm2 starts it, where that is not the application's folder: it reads .env there."""
    own = os.path.realpath(app_dir)
    for process in running:
        there = files.link(f"/proc/{process.pid}/cwd")
        if own not in (there, os.path.realpath(_variables(process.pid).get("pm_cwd", app_dir))):
            return there
    return ""


def _doubt(app: str, running: Sequence[Process], is_serving: bool) -> str:
    """What speaks against an app that pm2 calls online; see `Running`."""
    if any(is_suspended(process.pid) for process in running):
        return "suspended"
    if services.is_unproved(services.of(app), running):
        return "unproved"
    return "" if is_serving else "silent"


def _told(pid: str) -> str:
    """A process in words. Not its arguments, which may hold a secret."""
    variables = _variables(pid)
    unit = os.path.basename(files.read_text(f"/proc/{pid}/cgroup").rpartition("\n")[2])
    words = [
        f"pid {pid}, user {user_of(f'/proc/{pid}')}",
        f"app {variables['name']} of pm2 {variables['PM2_HOME']}" if {"name", "PM2_HOME"} <= {*variables} else "",
        unit if unit.endswith(".service") else "",
    ]
    return f"{os.path.basename(files.link(f'/proc/{pid}/exe'))} ({', '.join(filter(None, words))})"
