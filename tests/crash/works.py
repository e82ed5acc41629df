"""The works: every function of `remote` that changes files and can run in a folder, as data."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from remote import (
    Failure,
    backups,
    dotenv_edit,
    files,
    loading,
    lock,
    nginx,
    npm,
    pm2,
    restart,
    rollback,
    services,
    session,
    source,
    step,
)
from remote.processes import Process
from remote.readings import Api
from tests.rehearsal import image

BEFORE, FIRST = "20261122T000000Z", "20261123T000000Z"  # an earlier deploy, and the one that is struck
ENV = "# наш\nA='1'\nYCLIENTS_APP_ID={} # номер\nB=2\n"
RUNNING = [Process(1, "boot/1/1", 0.0)]
API: Api = {
    "app": "api",
    "app_dir": "",
    "port": 1,
    "packages": [],
    "start_timeout": 1,
    "settle_time": 0,
}


@dataclass(frozen=True)
class Work:
    """`do` changes the `watched` paths of the folder that `prepare` made, if they need it. It gets the deploy's id.

    `is_noted`: a backup and a note tell of each new file, and by them the host's guardian puts it back. `is_loaded`: so
    it does here, but for a service that has loaded its files by then. `passing`: the work whose last states are allowed
    on the way. `again`: the next run, where that is another one.
    """

    prepare: Callable[[Path], object]
    do: Callable[[Path, str], object]
    watched: tuple[str, ...]
    is_noted: bool = False
    is_loaded: bool = False
    passing: str = ""
    again: Callable[[Path, str], object] | None = None
    check: Callable[[Path], list[str]] = lambda _: []


def state(path: Path) -> str:
    """Of a file its mode and content, of a link its target, of a folder all that is in it; empty for nothing."""
    if path.is_symlink():
        return f"-> {path.readlink()}"
    if path.is_dir():
        below = sorted(each for each in path.rglob("*") if each.is_symlink() or not each.is_dir())
        return "\n".join(f"{each.relative_to(path)} {state(each)}" for each in below)
    return f"{path.stat().st_mode & 0o7777:o} {path.read_text()}" if path.exists() else ""


def put(path: Path, text: str, mode: int = 0o640) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def replace(module: ModuleType, **functions: object) -> None:
    for name, function in functions.items():
        setattr(module, name, function)


def enter(folder: Path) -> None:
    """What is below / on a host is below this folder, for this process; nginx and pm2 are nobody's."""
    backups.BACKUPS, services.STATE, lock.FOLDER = f"{folder}/backups", f"{folder}/state", f"{folder}/run"
    session.AUDIT, session.AUDIT_SIZE = f"{folder}/audit.jsonl", 100
    nginx.ETC = f"{folder}/etc"
    os.environ["PM2_HOME"] = f"{folder}/pm2"
    replace(nginx, workers=lambda: list(RUNNING), complaint=str)
    replace(pm2, processes=lambda *_: list(RUNNING))
    pm2.owner.cache_clear()


@cache
def modules() -> Path:
    return image.layers()[0] / "opt/ai-admin/node_modules"


def digest(path: Path) -> str | None:
    return files.sha256(files.read(str(path)))


# --- .env, source, nginx: what deploy.py writes


def has_env(folder: Path) -> None:
    """An application's folder with the real dotenv."""
    put(folder / "app/.env", ENV.format(1))
    (folder / "app/node_modules").mkdir()
    (folder / "app/node_modules/dotenv").symlink_to(modules() / "dotenv")


def write_env(folder: Path, deploy: str) -> None:
    env, value = folder / "app/.env", {"YCLIENTS_APP_ID": "18289"}
    dotenv_edit.write(deploy, path=str(env), app="api", values=value, literals=value, once=[], expected=digest(env))


def has_sources(folder: Path) -> None:
    put(folder / "app/src/routes.js", "let old = 1\n", 0o644)
    put(folder / "app/src/pool.js", "let old = 2\n", 0o600)


def write_sources(folder: Path, deploy: str) -> None:
    contents = {"src/routes.js": "let fresh = 1\n", "src/pool.js": "let fresh = 2\n"}
    expected = {path: digest(folder / "app" / path) for path in contents}
    source.write(deploy, app="api", app_dir=str(folder / "app"), contents=contents, expected=expected)


def has_site(folder: Path) -> None:
    put(folder / "etc/available", "old\n", 0o644)
    put(folder / "etc/enabled", "a copy, older\n", 0o600)


def has_plain_site(folder: Path) -> None:
    put(folder / "etc/available", "old\n", 0o644)


def write_site(folder: Path, deploy: str) -> None:
    site, enabled = folder / "etc/available", folder / "etc/enabled"
    to_link = enabled.exists() and not enabled.is_symlink()
    nginx.write_site(
        deploy,
        file=str(site),
        content="new\n",
        expected=digest(site),
        link=str(enabled) if to_link else "",
        replaced=digest(enabled) if to_link else None,
    )


def write_refused_site(folder: Path, deploy: str) -> None:
    replace(nginx, complaint=lambda: "emerg")
    with suppress(Failure):
        write_site(folder, deploy)
    replace(nginx, complaint=str)


# --- npm: what it made stands ready, and Node is not asked


def has_packages(folder: Path) -> None:
    for place, version in ((folder / "app", 1), (folder / "made", 2)):
        for name in ("old", "@s/new") if version == 2 else ("old",):
            put(place / f"node_modules/{name}/package.json", json.dumps({"version": f"{version}.0.0"}), 0o644)
            put(place / f"node_modules/{name}/index.js", f"{version}", 0o644)
    packages = {f"node_modules/{name}": {"version": "2.0.0"} for name in ("old", "@s/new")}
    put(folder / "made/node_modules/.package-lock.json", json.dumps({"packages": packages}))


def install(folder: Path, deploy: str) -> None:
    def stage(_: str, target: str, *__: object) -> list[str]:
        shutil.copytree(folder / "made", target)
        return []

    replace(npm, stage=stage)
    replace(loading, load=lambda *of: dict.fromkeys(of[2], ""))
    names, app_dir = ["old", "@s/new"], str(folder / "app")
    lacking = [name for name in names if npm.versions(f"{app_dir}/node_modules").get(name) != "2.0.0"]
    if lacking:
        npm.install(deploy, app="api", app_dir=app_dir, ranges=dict.fromkeys(lacking, "^2"), packages=names)
    loading.check("api", app_dir, names)  # as the restart after it does


# --- the way back


def write_all(folder: Path, deploy: str) -> None:
    made = folder / "etc/made"
    write_env(folder, deploy)
    write_sources(folder, deploy)
    write_site(folder, deploy)
    services.replace_file(deploy, "nginx", RUNNING, str(made), b"a file that was not there", digest(made), 0o644)


def has_all(folder: Path) -> None:
    """What BEFORE changed, and both services have loaded."""
    has_env(folder)
    has_sources(folder)
    has_site(folder)
    write_all(folder, BEFORE)
    for service in ("app-api", "nginx"):
        services.after_start(service, RUNNING, "")


ALL = ("app/.env", "app/src/routes.js", "app/src/pool.js", "etc/available", "etc/enabled", "etc/made")


def roll_back(_: Path, deploy: str) -> None:
    replace(pm2, read=lambda **_: {"status": "online", "stale": False, "shadowed": [], "fixed": []})
    replace(restart, run_what_is_on_disk=lambda *_, **__: services.after_start("app-api", RUNNING, ""))
    replace(nginx, reload=lambda *_, **__: services.after_start("nginx", RUNNING, ""))
    rollback.roll_back(deploy, undo=BEFORE, api=API, keys=[])


def refused_rollback(folder: Path, deploy: str) -> None:
    """nginx refuses the site as it was."""
    replace(nginx, complaint=lambda: "" if (folder / "etc/made").exists() else "emerg")
    with suppress(Failure):
        roll_back(folder, deploy)
    replace(nginx, complaint=str)


def has_written(folder: Path) -> None:
    """Nothing has loaded what FIRST wrote, and somebody has changed it since."""
    has_env(folder)
    has_sources(folder)
    write_env(folder, FIRST)
    write_sources(folder, FIRST)
    put(folder / "app/.env", ENV.format(18289) + "THEIRS=1\n")


def undo(*_: object) -> None:
    services.undo("app-api", FIRST)


def theirs(folder: Path) -> list[str]:
    env = folder / "app/.env"
    found = [env, *folder.glob("backups/**/.env.found")]
    return [] if any("THEIRS" in file.read_text() for file in found) else ["what somebody else wrote is lost"]


def end_session(*_: object) -> None:
    """As after a client that died."""
    replace(session, require_root=lambda: None, _heard=lambda: {"result": "cut off", "changed": []})
    replace(backups, new_deploy=lambda *_: FIRST)
    replace(step, WAIT=0)
    session.session(who="x", app="api", bundle="x", wait=0, questions={})


def log(folder: Path) -> list[str]:
    lines = [line for file in folder.glob("audit.jsonl*") for line in file.read_text().splitlines()]
    try:
        return [] if all(json.loads(line) for line in lines) else ["an empty line in the log"]
    except ValueError:
        return [f"a torn line in the log: {lines}"]


def has_full_backups(folder: Path) -> None:
    put(folder / "etc/F", "old\n")
    for number in range(backups.KEEP):
        backups.keep(f"20261101T0000{number:02}Z", f"{folder}/etc/F", "")
        backups.keep(f"20261101T0000{number:02}Z", f"{folder}/etc/G", "")


def keep(folder: Path, deploy: str) -> None:
    backups.keep(deploy, f"{folder}/etc/F", "")


def kept(_: Path) -> list[str]:
    """Each deploy that is listed can be undone."""
    found = []
    for deploy in backups.read(keys=[]):
        for file, entry in backups.manifest(deploy).items():
            if isinstance(entry["kept"], str) and state(Path(entry["kept"])) != "640 old\n":
                found.append(f"{deploy} lists {file}, and its copy is not whole")
    return found


def has_kept(folder: Path) -> None:
    """A file, a link, and nothing; each is something else now."""
    put(folder / "etc/F", "old\n")
    (folder / "etc/L").symlink_to("F")
    for name in "FLN":
        backups.keep(BEFORE, f"{folder}/etc/{name}", "")
    (folder / "etc/L").unlink()
    for name in "FLN":
        put(folder / "etc" / name, "new\n")


def restore(*_: object) -> None:
    for file, entry in backups.manifest(BEFORE).items():
        backups.restore(file, entry, backups.state(file))


def after_start(*_: object) -> None:
    services.after_start("app-api", RUNNING, "fingerprint")


def believes(folder: Path) -> list[str]:
    """Without our note of the start the service is taken for stale, never the other way round."""
    written, started = folder / "state/app-api.json", folder / "state/app-api.started.json"
    return [] if written.exists() or started.exists() else ["no note is left that the file was written"]


SITE = ("etc/available", "etc/enabled")
SOURCES = ("app/src/routes.js", "app/src/pool.js")
WORKS = {
    "dotenv_edit.write": Work(has_env, write_env, ("app/.env",), is_noted=True),
    "source.write": Work(has_sources, write_sources, SOURCES, is_noted=True),
    "nginx.write_site": Work(has_plain_site, write_site, SITE[:1], is_noted=True),
    "nginx.write_site, a copy": Work(has_site, write_site, SITE, is_noted=True),
    "nginx.write_site, refused": Work(
        has_site, write_refused_site, SITE, is_noted=True, passing="nginx.write_site, a copy"
    ),
    "npm.install": Work(has_packages, install, ("app/node_modules/old", "app/node_modules/@s/new")),
    "backups.keep": Work(has_full_backups, keep, ("etc/F",), check=kept),
    "backups.restore": Work(has_kept, restore, ("etc/F", "etc/L", "etc/N")),
    "services.undo": Work(has_written, undo, ("app/.env", *SOURCES), check=theirs),
    "services.after_start": Work(has_written, after_start, ("state/app-api.json",), check=believes),
    "rollback.roll_back": Work(has_all, roll_back, ALL, is_loaded=True),
    "rollback.roll_back, refused": Work(
        has_all, refused_rollback, ALL, is_loaded=True, passing="rollback.roll_back", again=write_all
    ),
    "session.session, its end": Work(has_written, end_session, ("app/.env", *SOURCES), check=log),
}
