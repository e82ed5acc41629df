"""npm packages: what is installed, and how what is missing gets in while nothing else moves.

`npm install` in the application's folder would also remove what package.json does not list and move other packages to
what the lock says; both have taken the application down. So each package is made in a folder of its own, with all it
needs inside it, and enters node_modules in one rename.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from remote import Failure, files, pm2, services
from remote.readings import Package

STAGING = ".ai-admin-deploy-npm"
OPTIONS = ("--omit=dev", "--legacy-peer-deps", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
Json = dict[str, Any]


def _json(path: str) -> Json:
    found: Json = json.loads(files.read(path) or b"{}")
    return found


def read(*, app_dir: str, packages: Sequence[str]) -> dict[str, Package]:
    """Reads files: npm itself takes half a second. Raises Failure."""
    if not os.path.exists(f"{app_dir}/package.json"):
        raise Failure(f"{app_dir}/package.json is not there: deploy the application first, or set app_dir")
    own, lock = _json(f"{app_dir}/package.json"), _json(f"{app_dir}/package-lock.json")
    ranges = {**own.get("optionalDependencies", {}), **own.get("dependencies", {})}
    tree = Tree(app_dir)
    return {
        name: {
            "version": tree.manifest(f"{app_dir}/node_modules/{name}").get("version"),
            "complete": tree.is_complete(f"{app_dir}/node_modules/{name}"),
            "range": ranges.get(name),
            "locked": lock.get("packages", {}).get(f"node_modules/{name}", {}).get("version"),
        }
        for name in packages
    }


class Tree:
    """The installed packages, each one's package.json read once."""

    def __init__(self, app_dir: str) -> None:
        self.app_dir = app_dir
        self.manifests: dict[str, Json] = {}
        self.complete: set[str] = set()

    def manifest(self, folder: str) -> Json:
        """Empty when there is no such package."""
        if folder not in self.manifests:
            self.manifests[folder] = _json(f"{folder}/package.json")
        return self.manifests[folder]

    def is_complete(self, folder: str) -> bool:
        own = self.manifest(folder)
        if folder in self.complete or not own:
            return bool(own)
        known = set(self.complete)
        self.complete.add(folder)  # packages may need one another
        needs = {*(own.get("dependencies") or {})} - {*(own.get("optionalDependencies") or {})}
        if all((found := self.find(name, folder)) and self.is_complete(found) for name in needs):
            return True
        self.complete = known  # without what was taken for complete because this one was
        return False

    def find(self, name: str, folder: str) -> str | None:
        """Node's own search: the nearest node_modules upwards."""
        while folder.startswith(self.app_dir):
            if self.manifest(f"{folder}/node_modules/{name}"):
                return f"{folder}/node_modules/{name}"
            folder = os.path.dirname(folder)
        return None


def lock_for(lock: Json, name: str) -> tuple[Json, Json] | None:
    """package.json and package-lock.json for the one package, cut out of the application's own lock.

    The same versions and checksums, each dependency nested below what needs it. None when the lock does not list it.
    """
    top, whole = f"node_modules/{name}", lock.get("packages", {})
    if top not in whole:
        return None
    cut: Json = {}

    def add(key: str, place: str, above: dict[str, str]) -> None:
        entry = whole[key]
        cut[place] = {word: value for word, value in entry.items() if word not in ("dev", "peer", "devOptional")}
        needs = {**entry.get("dependencies", {}), **entry.get("optionalDependencies", {})}
        found = {each: at for each in needs if (at := _nearest(whole, each, key))}
        here = {each: at for each, at in found.items() if above.get(each) != at}
        for each, at in here.items():
            add(at, f"{place}/node_modules/{each}", {**above, **here})

    add(top, top, {name: top})
    root = {"name": "staging", "dependencies": {name: whole[top]["version"]}}
    return root, {"name": "staging", "lockfileVersion": 3, "requires": True, "packages": {"": root, **cut}}


def _nearest(packages: Json, name: str, key: str) -> str | None:
    """In a lock, what `find` is on the disk."""
    while f"{key}/node_modules/{name}".lstrip("/") not in packages:
        if not key:
            return None
        key = key[: max(key.rfind("/node_modules/"), 0)]
    return f"{key}/node_modules/{name}".lstrip("/")


def versions(modules: str) -> dict[str, str]:
    """Of each package at the top of node_modules."""
    names = [name for name in files.names(modules) if not name.startswith(".")]
    scoped = [
        f"{scope}/{name}" for scope in names if scope.startswith("@") for name in files.names(f"{modules}/{scope}")
    ]
    found = {name: _json(f"{modules}/{name}/package.json").get("version") for name in [*names, *scoped]}
    return {name: version for name, version in found.items() if version}


def stage(app: str, folder: str, name: str, range_: str, lock: Json, npmrc: str) -> None:
    """Make the package in a folder of its own: as the lock has it, where it does, else by its range. Raises Failure."""
    os.makedirs(folder)
    if (own := files.read(npmrc)) is not None:
        files.write_whole(f"{folder}/.npmrc", own, 0o600)
    cut = lock_for(lock, name)
    manifests = cut or ({"name": "staging", "dependencies": {name: range_}},)
    for file, manifest in zip(("package.json", "package-lock.json"), manifests, strict=False):
        with open(f"{folder}/{file}", "w", encoding="utf-8") as target:
            json.dump(manifest, target)
    files.give(folder, pm2.owner(app).ids)
    verb = ("ci",) if cut else ("install", "--install-strategy=nested")
    done = pm2.run_node(app, "npm", *verb, *OPTIONS, cwd=folder, timeout=600)
    if done.status != 0:
        errors = re.findall(r"npm (?:ERR!|error) (.*)", done.stderr)
        raise Failure(f"npm could not install {name}@{range_}: {'; '.join(errors[:3]) or done.stderr.strip()}")


def place(made: str, target: str, aside: str) -> None:
    """Into node_modules in one rename; what was there is put back when that fails."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    replaces = os.path.lexists(target)
    if replaces:
        os.rename(target, aside)
    try:
        os.rename(made, target)
    except OSError:
        if replaces:
            os.rename(aside, target)
        raise
    files.remove_tree(aside)


def install(
    deploy: str, *, app: str, app_dir: str, ranges: Mapping[str, str], from_lock: Sequence[str]
) -> dict[str, str | None]:
    """Install these packages, each in its range; those of `from_lock` as the application's lock has them.

    Returns their versions. Raises Failure when npm fails, or when another package changed meanwhile.
    """
    del deploy  # no file of others is replaced
    modules, staging = f"{app_dir}/node_modules", f"{app_dir}/{STAGING}"
    lock = _json(f"{app_dir}/package-lock.json")
    before = versions(modules)
    files.remove_tree(staging)  # of a run that was killed
    os.mkdir(staging)
    files.give(staging, pm2.owner(app).ids)
    try:
        folders = {name: f"{staging}/{name.replace('/', '+')}" for name in ranges}
        for name, folder in folders.items():
            stage(app, folder, name, ranges[name], lock if name in from_lock else {}, f"{app_dir}/.npmrc")
        services.before_change("api", pm2.processes(app), {})
        for name, folder in folders.items():
            files.give(folder, files.owner(modules))
            place(f"{folder}/node_modules/{name}", f"{modules}/{name}", f"{staging}/replaced")
    finally:
        files.remove_tree(staging)
    after = versions(modules)
    moved = [name for name in before if before[name] != after.get(name) and name not in ranges]
    if moved:
        raise Failure(f"packages that are not ours changed meanwhile: {', '.join(moved)}; did somebody run npm?")
    return {name: after.get(name) for name in ranges}
