"""npm packages: which of them load, and how those that do not get in while nothing else moves.

npm itself runs in a folder of its own: DECISIONS.md says why.
"""

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from remote import Failure, files, loading, pm2, services
from remote.processes import Done
from remote.readings import Package

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of renameat2(2)
# Whatever an .npmrc says: npm's default hoisting, and the lock is used. npm 9.2 tries a host again after 10 and 60 s.
OPTIONS = (
    *(
        "--omit=dev",
        "--legacy-peer-deps",
        "--install-strategy=hoisted",
        "--package-lock",
        "--fetch-retry-maxtimeout=10000",
    ),
    *("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"),
)
TIMEOUT = 600  # seconds for npm
GIT_TIMEOUT = 120  # seconds for npm where it asks a git host: one that cannot be reached may take for ever
Json = dict[str, Any]


def _json(path: str) -> Json:
    """Raises Failure, which names the file."""
    try:
        found = json.loads(files.read(path) or b"{}")
    except ValueError as error:
        raise Failure(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Failure(f"{path} is not a JSON object")
    return found


def _version(package: str) -> str | None:
    """Of an installed package; None where it has none that can be read, as after a power cut."""
    with suppress(Failure):
        return _json(f"{package}/package.json").get("version")
    return None


def read(*, app: str, app_dir: str, packages: Sequence[str]) -> dict[str, Package]:
    """Reads files: npm itself takes half a second. Raises Failure."""
    if not os.path.exists(f"{app_dir}/package.json"):
        raise Failure(f"{app_dir}/package.json is not there: deploy the application first, or set app_dir")
    own = _json(f"{app_dir}/package.json")
    ranges = {**own.get("optionalDependencies", {}), **own.get("dependencies", {})}
    found = {name: _version(f"{app_dir}/node_modules/{name}") for name in packages}
    causes = loading.known(app, app_dir, [name for name in packages if found[name]])
    return {
        name: {"version": found[name], "cause": causes.get(name, "not installed"), "range": ranges.get(name)}
        for name in packages
    }


# --- npm's own tree, in a folder of its own


def from_git(lock: Json) -> dict[str, str]:
    """By name, the git host that a package of the lock, or one it needs, comes from."""
    entries = [(key.rpartition("node_modules/")[2], entry) for key, entry in lock.get("packages", {}).items() if key]
    origins = {name: re.match(r"git[^/]*//(?:[^/]*@)?([^/:#]+)", str(each.get("resolved"))) for name, each in entries}
    needs = [(name, needed) for name, entry in entries for needed in entry.get("dependencies", {})]
    found: dict[str, str] = {}
    more = {name: host[1] for name, host in origins.items() if host}
    while more:
        found |= more
        more = {name: found[needed] for name, needed in needs if needed in found and name not in found}
    return found


def stage(app: str, folder: str, app_dir: str, ranges: Mapping[str, str]) -> list[str]:
    """Let npm install these packages in the folder: as the application's lock has them, where it does.

    Where the lock needs a git host and npm fails with it, the registry must do. Returns what the operator should know.
    Raises Failure.
    """
    os.mkdir(folder)
    if (own := files.read(f"{app_dir}/.npmrc")) is not None:
        files.write_whole(f"{folder}/.npmrc", own, 0o600)
    lock = _json(f"{app_dir}/package-lock.json")
    git, entries = from_git(lock), lock.get("packages", {})
    here = [name for name in ranges if name in git and f"node_modules/{name}" in entries]
    done = _npm(app, folder, ranges, lock, GIT_TIMEOUT if here else TIMEOUT)
    if done.status == 0:
        return []
    wanted, why = ", ".join(f"{name}@{range_}" for name, range_ in ranges.items()), complaint(done)
    if not here:
        raise Failure(f"npm could not install {wanted}: {why}")
    needed = "; ".join(f"{name} {entries[f'node_modules/{name}']['version']} needs {git[name]}" for name in here)
    rest = {key: each for key, each in entries.items() if key.rpartition("node_modules/")[2] not in git}
    done = _npm(app, folder, ranges, {**lock, "packages": rest}, TIMEOUT)
    if done.status != 0:
        both = f"{needed} (from the lock file): {why}. Without it: {complaint(done)}"
        raise Failure(f"npm could not install {wanted}: {both}")
    made = ", ".join(f"{name} {_version(f'{folder}/node_modules/{name}')}" for name in here)
    return [f"npm: {needed} (from the lock file), which failed: {why}", f"npm: {made} from the registry instead"]


def _npm(app: str, folder: str, ranges: Mapping[str, str], lock: Json, timeout: float) -> Done:
    """npm 9 keeps what a lock has where that satisfies the ranges, finds the rest, and drops what nothing needs."""
    files.remove_tree(f"{folder}/node_modules")  # of the first try
    for file, manifest in (("package.json", {"dependencies": {**ranges}}), ("package-lock.json", lock)):
        if manifest:
            with open(f"{folder}/{file}", "w", encoding="utf-8") as target:
                json.dump(manifest, target)
    files.give(folder, pm2.owner(app).ids)
    return pm2.run_node(app, "npm", "install", *OPTIONS, cwd=folder, timeout=timeout)


def complaint(done: Done) -> str:
    """npm's error, with the lines that name a host, and without the user and password that an .npmrc may have there."""
    ended = done.line_with("Error") or f"it ended with status {done.status}"
    lines = re.findall(r"npm (?:ERR!|error) +(.+)", done.stderr) or [ended]
    telling = [line for line in lines[1:] if "://" in line or "fatal:" in line] or lines[1:]
    return re.sub(r"//[^/\s]*@", "//", "; ".join([*lines[:1], *telling[:2]]))


# --- from there into node_modules


def layout(packages: Json, name: str) -> dict[str, str]:
    """By its new place, all of them in the package's own folder, where npm put each package that this one needs.

    What lay beside it lies in its node_modules, for one may need what it does not list. Where the package has another
    version of that already, it lies in those that need it: each finds what it found in npm's tree.
    """
    top = f"node_modules/{name}"
    reached: set[str] = set()
    waiting = [top]
    while waiting:
        key = waiting.pop()
        if key not in reached:
            reached.add(key)
            waiting += _needs(packages, key).values()
    beside = {key.removeprefix("node_modules/"): key for key in reached if key.count("node_modules/") == 1}
    found: dict[str, str] = {}

    def add(key: str, place: str, above: dict[str, str]) -> None:
        found[place] = key
        needs = {**(beside if key == top else {}), **_needs(packages, key)}
        here = {each: at for each, at in needs.items() if above.get(each) != at}
        for each, at in here.items():
            add(at, f"{place}/node_modules/{each}", {**above, **here})

    add(top, top, {name: top})
    return found


def _needs(packages: Json, key: str) -> dict[str, str]:
    """Of a package in npm's tree: by name what it needs, and where Node finds that."""
    kinds = ("dependencies", "optionalDependencies", "peerDependencies", "bundleDependencies")
    names = [name for kind in kinds for name in packages[key].get(kind) or ()]
    return {name: at for name in names if (at := _nearest(packages, name, key))}


def _nearest(packages: Json, name: str, key: str) -> str | None:
    """Node's own search: the nearest node_modules upwards."""
    while f"{key}/node_modules/{name}".lstrip("/") not in packages:
        if not key:
            return None
        key = key[: max(key.rfind("/node_modules/"), 0)]
    return f"{key}/node_modules/{name}".lstrip("/")


def gather(tree: str, target: str, names: Collection[str]) -> None:
    """Copy each package with all that it needs inside it from npm's tree to `target`, a folder with a node_modules."""
    import shutil  # takes 3 ms, and a look needs none of it

    packages = _json(f"{tree}/node_modules/.package-lock.json")["packages"]
    for name in names:
        for place, key in layout(packages, name).items():
            alone = partial(_nested, f"{tree}/{key}")
            shutil.copytree(f"{tree}/{key}", f"{target}/{place}", symlinks=True, ignore=alone)


def _nested(package: str, folder: str, _: object) -> list[str]:
    """What is not the package's own."""
    return ["node_modules"] if folder == package else []


def versions(modules: str) -> dict[str, str]:
    """Of each package at the top of node_modules."""
    names = [name for name in files.names(modules) if not name.startswith(".")]
    scoped = [
        f"{scope}/{name}" for scope in names if scope.startswith("@") for name in files.names(f"{modules}/{scope}")
    ]
    found = {name: _version(f"{modules}/{name}") for name in [*names, *scoped]}
    return {name: version for name, version in found.items() if version}


def place(made: str, target: str) -> None:
    """Move it into node_modules in one rename; what was there is then where it was made. Raises Failure."""
    if not os.path.lexists(target):
        return os.rename(made, target)
    import ctypes  # Python has no other way to it; a look needs none of it

    paths = [(AT_FDCWD, os.fsencode(path)) for path in (made, target)]
    if ctypes.CDLL(None, use_errno=True).renameat2(*paths[0], *paths[1], RENAME_EXCHANGE) != 0:
        why = files.reason(OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target))
        raise Failure(f"{why}: it cannot be replaced in one rename; move it away by hand, and run again")
    return None


def _make_folder(path: str) -> None:
    """Owned as its parent is, and readable by others."""
    if not os.path.isdir(path):
        os.makedirs(path)
        os.chown(path, *files.owner(os.path.dirname(path)))


def install(
    deploy: str, *, app: str, app_dir: str, ranges: Mapping[str, str], packages: Sequence[str]
) -> dict[str, list[str]]:
    """Install those of `ranges`, each in its range, and load all `packages` as the application will.

    They are the user's who owns node_modules. Returns what to tell the operator. Raises Failure when npm fails or one
    does not load, before node_modules is touched; or when another package changed meanwhile.
    """
    del deploy  # no file of others is replaced
    os.umask(0o022)  # another user than root may run the application
    staging = loading.staging(app_dir)
    modules = os.path.dirname(staging)
    _make_folder(modules)
    before = versions(modules)
    files.remove_tree(staging)  # of a run that was killed
    os.mkdir(staging)
    try:
        said = stage(app, f"{staging}/npm", app_dir, ranges)
        gather(f"{staging}/npm", staging, ranges)
        loading.require(
            loading.load(app, staging, [*ranges])
        )  # what is not in it, Node finds in node_modules, as it will later
        files.give(f"{staging}/node_modules", files.owner(modules))
        services.before_change(services.of(app), pm2.processes(app), {})
        for name in ranges:
            _make_folder(os.path.dirname(f"{modules}/{name}"))
            place(f"{staging}/node_modules/{name}", f"{modules}/{name}")
    finally:
        files.remove_tree(staging)
    after = versions(modules)
    moved = [name for name in before if before[name] != after.get(name) and name not in ranges]
    if moved:
        raise Failure(f"packages that are not ours changed meanwhile: {', '.join(moved)}; did somebody run npm?")
    loading.check(app, app_dir, packages)
    return {"said": said}
