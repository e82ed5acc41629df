"""Which processes run the API and nginx, and since when. Of an environment, only names that are asked for are told."""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

asked = json.loads(sys.argv[1])
APP = asked["app"]
TICKS = os.sysconf("SC_CLK_TCK")  # a second: a start is known to 1/100 s
AT_ONCE = 5  # seconds within which pm2 stops what it has said that it will restart


def text(path: str, size: int = -1) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(size).decode(errors="replace")
    except OSError:
        return ""


def stat(pid: int | str) -> tuple[str, int, float]:
    """State, parent and start (seconds since the epoch) of a process."""
    fields = text(f"/proc/{pid}/stat").rpartition(") ")[2].split()
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)  # /proc/uptime may be a container's
    return fields[0], int(fields[1]), booted + int(fields[19]) / TICKS


def environment(pid: int | str) -> tuple[dict[str, Any], bool]:
    """And whether it is one of cluster mode, where pm2 passes it as JSON."""
    own: dict[str, Any] = dict(each.split("=", 1) for each in text(f"/proc/{pid}/environ").split("\0") if "=" in each)
    try:
        return {**own, **json.loads(own.get("pm2_env", "{}"))}, "pm2_env" in own
    except ValueError:
        return own, False


def link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def user(pid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid)
    except (KeyError, OSError):
        return pwd.getpwuid(0)


def above(pid: int) -> Iterator[int]:
    while pid > 1:
        yield pid
        try:
            pid = stat(pid)[1]
        except (IndexError, ValueError):
            return


def pm2_home(pid: int) -> str:
    return str(environment(pid)[0].get("PM2_HOME", ""))


def processes(home: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """The pids in pm2's files, each with what `environment` says. By the name in there: pm2 (7.0) writes `a_b` as
    `a-b-0.pid`. A pid file may be older than its process, and the pid may belong to another one by now."""
    names = os.listdir(f"{home}/pids") if os.path.isdir(f"{home}/pids") else []
    daemon = text(f"{home}/pm2.pid").strip()
    pids = {text(f"{home}/pids/{name}").strip() for name in names}
    pids |= {*text(f"/proc/{daemon}/task/{daemon}/children").split()}  # an app may have a pid file of its own
    for pid in sorted(pids):
        variables, cluster = environment(pid) if pid.isdigit() else ({}, False)
        if variables.get("name") == APP:
            yield pid, variables, cluster


def saved(home: str) -> list[dict[str, Any]]:
    try:
        dump = json.loads(text(f"{home}/dump.pm2"))
        found = []
        for each in dump:
            if each.get("name") == APP:
                found.append({key: each.get(key) for key in ("status", "exec_mode")})
                found[-1].update(folder=os.path.realpath(each.get("pm_cwd") or asked["app_dir"]))
                found[-1].update(shadowed=shadowed({**each, **each.get("env", {})}))
        return found
    except (ValueError, AttributeError, TypeError):
        return []


def has_it(home: str) -> bool:
    return any(processes(home)) or bool(saved(home))


def pm2() -> dict[str, Any]:
    # a container's has another root
    everyone = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and link(f"/proc/{pid}/root") in ("/", "")]
    daemons = [pid for pid in everyone if re.match(r"PM2 v[^ ]*: God Daemon", text(f"/proc/{pid}/cmdline", 200))]
    listening = subprocess.run(["ss", "-Hltnp", f"sport = :{asked['port']}"], stdout=subprocess.PIPE, text=True).stdout
    holders = sorted({int(pid) for pid in re.findall(r"pid=(\d+),", listening)})
    daemon = next((each for pid in holders for each in above(pid) if each in daemons), None)
    daemon = daemon or next((each for each in daemons if has_it(pm2_home(each))), None)
    owner = user(daemon) if daemon else pwd.getpwuid(os.getuid())
    home = (daemon and pm2_home(daemon)) or os.environ.get("PM2_HOME") or f"{owner.pw_dir}/.pm2"
    workers: list[dict[str, Any]] = []
    for pid, variables, cluster in processes(home):
        state, _, started = stat(pid)
        workers.append({"pid": int(pid), "started": started, "cluster": cluster, "shadowed": shadowed(variables)})
        workers[-1].update(state=state, folder=link(f"/proc/{pid}/cwd"))
    own = {each["pid"] for each in workers}  # of `npm start` it is a child that listens
    holders = [next((each for each in above(pid) if each in own), pid) for pid in holders]
    others = [user(each).pw_name for each in daemons if each != daemon and asks(each)]
    ended, why = ends(home)
    nodes = [path for each in workers if os.path.basename(path := link(f"/proc/{each['pid']}/exe")).startswith("node")]
    own_node = link(f"/proc/{daemon}/exe") if daemon else ""
    return {
        "daemon": daemon,
        "user": owner.pw_name,
        "home_of_user": owner.pw_dir,
        "home": home,
        "node": [*nodes, own_node][0],
        "own_node": own_node,
        "holders": holders,
        "workers": workers,
        "others": others,
        "saved": saved(home),
        "ends": [sum(when >= time.time() - seconds for when in ended) for seconds in asked["seconds"]],
        "why": why,
    }


def shadowed(variables: dict[str, Any]) -> list[str]:
    """The keys that pm2 gives the API with another value than .env."""
    env = text(f"{asked['app_dir']}/.env")
    return [key for key in asked["keys"] if key in variables and not says(env, key, variables[key])]


def says(env: str, key: str, value: Any) -> bool:
    """Has the .env this very value too? An ecosystem file may load it. Of several lines the last one counts."""
    lines = [line for line in env.splitlines() if re.match(rf"\s*(export\s+)?{key}\s*=", line)]
    same = rf"""\s*(export\s+)?{key}\s*=\s*(['"`]?){re.escape(str(value))}\2\s*(#.*)?$"""
    return bool(lines) and re.match(same, lines[-1]) is not None


def asks(daemon: int) -> bool:
    """Asking pm2 takes half a second: only where there are several."""
    owner, home = user(daemon).pw_name, pm2_home(daemon)
    path = f"PATH={os.path.dirname(link(f'/proc/{daemon}/exe'))}:{os.environ['PATH']}"  # nvm's is on no other
    command = ["runuser", "-u", owner, "--", "env", path, f"PM2_HOME={home}", "pm2", "describe", APP]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/").returncode == 0


# How pm2 (7.0) says that it will restart a process, or the app, which nobody asked it to.
ITSELF = {
    "memory": r"Process (\d+) restarted because it exceeds --max-memory-restart",
    "watch": rf"Change detected on path .* for app ({re.escape(APP)}) - restarting",
}


def ends(home: str) -> tuple[list[float], str]:
    """When the API ended, since pm2 was asked to stop or restart it; and why, where pm2 itself did it the last time."""
    found: dict[str, list[float]] = {}  # by pm2's id, of which there are several in cluster mode
    stopping = set()  # the end that pm2 makes is to come
    itself: dict[str, tuple[float, str]] = {}  # by id, or app: since when pm2 is about to restart it, and why
    why = ""
    for line in text(f"{home}/pm2.log")[-50_000:].splitlines():
        try:
            when = time.mktime(time.strptime(line[:19], "%Y-%m-%dT%H:%M:%S"))
        except ValueError:
            continue
        for reason, pattern in ITSELF.items():
            if its := re.search(pattern, line):
                itself[its[1]] = when, reason
        said = re.search(rf"(Stopping app:|App \[){re.escape(APP)}(?: id)?:(\d+)\]? ?(exited|starting)?", line)
        if not said:
            continue
        what, number = said[3] or said[1], said[2]
        own = [each for each in (number, APP) if each in itself and when - itself[each][0] <= AT_ONCE]
        # in cluster mode the next one starts before the old one stops, which has another id by then
        if own and (what == "Stopping app:" or (what == "starting" and number in own)):
            why = itself[own[0]][1]
            itself.pop(number, None)
            found.setdefault(number, []).append(when)
        elif what == "Stopping app:":
            found[number], why = [], ""
        if what == "Stopping app:":
            stopping.add(number)
        elif what == "exited" and number not in stopping:
            found.setdefault(number, []).append(when)
            why = ""
        elif what in ("exited", "starting"):
            stopping.discard(number)
    return [when for each in found.values() for when in each], why


def nginx() -> float | None:
    """When the oldest worker that serves started: a crashed one is replaced by a newer one that has the master's old
    configuration."""
    master = text("/run/nginx.pid").strip()
    children = text(f"/proc/{master}/task/{master}/children").split() if master else []
    serving = [pid for pid in children if "shutting down" not in text(f"/proc/{pid}/cmdline")]
    return min((stat(pid)[2] for pid in serving), default=None)


print(json.dumps({"pm2": pm2(), "nginx": nginx()}))
