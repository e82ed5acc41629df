"""The API's process under pm2 (7.0), found by pid files and /proc: each of pm2's own commands takes half a second."""

import json
import os
from collections.abc import Sequence
from typing import Any

from remote import Failure, files, services
from remote.processes import Done, Process, environment, identify, require, run
from remote.readings import Running


def home() -> str:
    return os.environ.get("PM2_HOME") or f"{os.environ.get('HOME', '/root')}/.pm2"


def processes(app: str) -> list[Process]:
    """The app's running process, or none: by pm2's pid files and the name in its environment.

    A file's name says less: pm2 makes `a_b` and `a-2` into `a-b-<pm_id>.pid` and `a-<pm_id>.pid` (7.0: lib/Common.js,
    lib/God.js). And it outlives its process, whose number another may have by now.
    """
    pids = [files.read_text(f"{home()}/pids/{name}") for name in files.names(f"{home()}/pids") if name.endswith(".pid")]
    found = [identify(pid) for pid in pids if f"name={app}" in environment(pid)]
    return [process for process in found if process][:1]


def daemon_runs() -> bool:
    """By its pid file, which may be an old one: the process must at least be a node."""
    return os.path.basename(files.link(f"/proc/{files.read_text(f'{home()}/pm2.pid')}/exe")).startswith("node")


def command(app_dir: str, *arguments: str) -> Done:
    """pm2 with a clean environment: what is in it when an app is started stays in pm2's record of the app."""
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root"), "PM2_HOME": home(), "LANG": "C.UTF-8"}
    return run("pm2", *arguments, cwd=app_dir, env=env, timeout=60)


def apps(app_dir: str) -> list[dict[str, Any]]:
    """pm2's list; it holds secrets. What the client says of a new daemon comes before it. Raises Failure."""
    listed = command(app_dir, "jlist")
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
    return next((each["pm2_env"] for each in apps(app_dir) if each["name"] == app), None)


def files_read_at_start(app_dir: str, packages: Sequence[str]) -> list[str]:
    """What the API reads when it starts and somebody may change: .env, packages, source."""
    modules = f"{app_dir}/node_modules"
    own = [f"{app_dir}/.env", f"{modules}/.package-lock.json", *(f"{modules}/{each}/package.json" for each in packages)]
    return own + files.below(f"{app_dir}/src")


def read(*, app: str, app_dir: str, packages: Sequence[str], keys: Sequence[str]) -> Running:
    """Only when the app does not run is pm2 asked why: its command starts a daemon where there is none."""
    require("pm2")
    running = processes(app)
    if not running:
        status = (known(app, app_dir) or {"status": "unknown"})["status"] if daemon_runs() else "no daemon"
        return {"status": status, "stale": True, "shadowed": []}
    names = {line.partition("=")[0] for line in environment(running[0].pid)}
    stale = services.is_stale("api", running, files_read_at_start(app_dir, packages))
    return {"status": "online", "stale": stale, "shadowed": [key for key in keys if key in names]}
