"""Does the application's Node load a package from the application's folder? Only then it counts as installed."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

from remote import Failure, files, pm2, services

TIMEOUT = 30  # seconds
SAYS = "ai-admin-deploy: "  # a package may print too

# One process for all, which does not wait for what they leave running.
PROGRAM = """
const esm = ['ERR_REQUIRE_ESM', 'ERR_REQUIRE_ASYNC_MODULE', 'ERR_PACKAGE_PATH_NOT_EXPORTED'];
const load = async (name) => {
  try {
    require(name);
  } catch (error) {
    if (!esm.includes(error?.code)) throw error;
    await import(name);
  }
};
const why = (error) => String(error?.message || error).split('\\n')[0];
(async () => {
  for (const name of process.argv.slice(1)) {
    const cause = await load(name).then(() => '', why);
    console.log(`\\nSAYS${JSON.stringify([name, cause])}`);
  }
  process.exit(0);
})();
""".replace("SAYS", SAYS)


def load(app: str, folder: str, packages: Sequence[str]) -> dict[str, str]:
    """By package, why the Node of this pm2 app cannot load it from this folder; empty where it can.

    NODE_PATH or NODE_OPTIONS of this shell are not the application's.
    """
    found: dict[str, str] = {}
    waiting = list(packages)
    while waiting:
        done = pm2.run_clean(app, "node", "-e", PROGRAM, "--", *waiting, cwd=folder, timeout=TIMEOUT)
        lines = done.stdout.decode(errors="replace").splitlines()
        found.update(json.loads(line.removeprefix(SAYS)) for line in lines if line.startswith(SAYS))
        waiting = [name for name in waiting if name not in found]
        if waiting:  # the first of them ended Node
            found[waiting.pop(0)] = done.line_with("Error") or f"Node ended with status {done.status}"
    return found


def require(causes: Mapping[str, str]) -> None:
    """Raises Failure, which names each that did not load, and why."""
    if failed := [f"{name} does not load: {cause}" for name, cause in causes.items() if cause]:
        raise Failure("; ".join(failed))


def staging(app_dir: str) -> str:
    """The folder where packages are made. node_modules may be a link, and on a file system of its own."""
    return os.path.realpath(f"{app_dir}/node_modules") + "/.ai-admin-deploy-npm"


def check(app: str, app_dir: str, packages: Sequence[str]) -> None:
    """Load them all, unless all did and no file has changed since, and write the note that spares the next looks Node.

    Raises Failure as `require`.
    """
    files.remove_tree(staging(app_dir))  # of an install that was killed: a copy of .npmrc may be in it
    note = {"fingerprint": _fingerprint(app, app_dir, packages), "tree": _tree(f"{app_dir}/node_modules")}
    old = services.load_note(_note(app))
    if note["tree"] and old == {**old, **note, "causes": dict.fromkeys(packages, "")}:
        return
    causes = load(app, app_dir, packages)
    services.save_note(_note(app), {**note, "causes": causes})
    require(causes)


def known(app: str, app_dir: str, packages: Sequence[str]) -> dict[str, str]:
    """As `load`, from the note. Node, a second of CPU, is only asked when something changed since."""
    note = services.load_note(_note(app))
    if {*packages} == {*note.get("causes", {})} and note.get("fingerprint") == _fingerprint(app, app_dir, packages):
        return dict(note["causes"])
    return load(app, app_dir, packages)


def _note(app: str) -> str:
    return f"{services.of(app)}.packages"


def _fingerprint(app: str, app_dir: str, packages: Sequence[str]) -> str:
    """Of Node, and of the folders in which a package comes or goes that ours may need."""
    modules = f"{app_dir}/node_modules"
    node = [f"{folder}/node" for folder in pm2.owner(app).path.split(":")]
    folders = [modules, *(f"{modules}/{name}/node_modules" for name in packages)]
    scopes = [f"{folder}/{name}" for folder in folders for name in files.names(folder) if name.startswith("@")]
    manifests = [f"{modules}/.package-lock.json", *(f"{modules}/{name}/package.json" for name in packages)]
    return services.fingerprint([*node, *folders, *scopes, *manifests])


def _tree(modules: str) -> str:
    """The fingerprint of all that is in it, 50 ms for 5,000 files; empty where a link leads out of it, to what may
    change too."""
    root, lines = os.path.realpath(modules), []
    waiting = [root]
    with suppress(FileNotFoundError):  # npm may be at work
        while waiting:
            with os.scandir(waiting.pop()) as folder:
                for each in folder:
                    stat = each.stat(follow_symlinks=False)
                    lines.append((each.path, stat.st_ino, stat.st_size, stat.st_ctime_ns))
                    if each.is_dir(follow_symlinks=False):
                        waiting.append(each.path)
                    elif each.is_symlink() and not os.path.realpath(each.path).startswith(f"{root}/"):
                        return ""
        return files.sha256(files.content(repr(sorted(lines)))) or ""
    return ""
