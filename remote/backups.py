"""The old files that deploys keep: BACKUPS/<deploy>/<path of the file>, with a manifest for each deploy."""

import json
import os
import time
from typing import Any

from remote import Failure, files

BACKUPS = "/var/backups/ai-admin-deploy"
KEEP = 10  # deploys whose old files are kept

# How `restore` brings a file back: the path of a 0600 copy, {"link": target} for a symlink, None for nothing.
Kept = Any


def new_deploy() -> str:
    """The id of a deploy that begins now: the host's own time in UTC, and never one that is there already."""
    now = time.time()
    while os.path.exists(f"{BACKUPS}/{(deploy := time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now)))}"):
        now += 1
    return deploy


def read() -> dict[str, list[str]]:
    """By deploy, oldest first: the files that it changed. One killed before it kept any is passed over."""
    return {deploy: list(kept) for deploy in files.names(BACKUPS) if (kept := manifest(deploy))}


def manifest(deploy: str) -> dict[str, Kept]:
    found: dict[str, Kept] = json.loads(files.read(f"{BACKUPS}/{deploy}/manifest.json") or b"{}")
    return found


def keep(deploy: str, file: str, spare: str = "") -> Kept:
    """Back up what is at `file`, once per deploy. Of older deploys the newest stay, and always the one to `spare`."""
    folder = f"{BACKUPS}/{deploy}"
    known = manifest(deploy)
    if file in known:
        return known[file]
    kept: Kept = None
    if os.path.islink(file):
        kept = {"link": os.readlink(file)}
    elif (old := files.read(file)) is not None:
        kept = folder + file
        files.make_private_folder(os.path.dirname(kept))
        files.write_whole(kept, old, 0o600, owner=files.owner(file))
    files.make_private_folder(folder)
    files.write_whole(f"{folder}/manifest.json", json.dumps({**known, file: kept}).encode(), 0o600)
    others = [each for each in files.names(BACKUPS) if each != deploy]  # never the one in hand, whatever the clock says
    for other in others[: 1 - KEEP]:
        if other != spare:
            files.remove_tree(f"{BACKUPS}/{other}")
    return kept


def restore(file: str, kept: Kept) -> None:
    """Put back what `keep` kept. Raises Failure."""
    if kept is None:
        files.remove(file)
    elif isinstance(kept, dict):
        files.place_symlink(file, kept["link"])
    elif (old := files.read(kept)) is not None:
        # where it is gone: .env holds secrets, and the copy has its owner
        files.write_whole(file, old, 0o600, owner=files.owner(kept))
    else:
        raise Failure(f"{kept} is gone, so {file} cannot be put back")
