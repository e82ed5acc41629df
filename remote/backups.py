"""The old files that deploys keep: BACKUPS/<deploy>/<path of the file>, with a manifest for each deploy."""

import json
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

from remote import Failure, dotenv, files, lock
from remote.readings import Entry, Undone

BACKUPS = "/var/backups/ai-admin-deploy"
ID = "%Y%m%dT%H%M%SZ"
KEEP = 10  # deploys of an application whose old files are kept


def new_deploy(last: str = "") -> str:
    """The id of a deploy that begins now: the host's own time in UTC, and later than the `last` one's or any kept here.

    Their ids tell which was the last, even if the clock was set back meanwhile.
    """
    deploy = time.strftime(ID, time.gmtime(time.time()))
    known = [each for each in (last, *files.names(BACKUPS)) if re.fullmatch(r"\d{8}T\d{6}Z", each)]
    if known and deploy <= max(known):
        import calendar  # takes 13 ms, and is seldom needed

        deploy = time.strftime(ID, time.gmtime(calendar.timegm(time.strptime(max(known), ID)) + 1))
    return deploy


def read(*, keys: Sequence[str]) -> dict[str, dict[str, Undone]]:
    """By deploy, oldest first, and by file that it changed: what its undoing means. `keys` are of a `.env`.

    A deploy killed before it kept any file is passed over, and so is one whose files all went back.
    """
    manifests = {deploy: found for deploy in files.names(BACKUPS) if (found := changed(deploy))}
    return {
        deploy: {file: _undone(file, each, keys) for file, each in found.items()} for deploy, found in manifests.items()
    }


def _undone(file: str, entry: Entry, keys: Sequence[str]) -> Undone:
    kept = entry["kept"]
    old, now = ({}, {})
    if os.path.basename(file) == ".env":
        old, now = dotenv.load(kept if isinstance(kept, str) else ""), dotenv.load(file)
    loses = [key for key in keys if now.get(key) and not old.get(key)]
    found, before = state(file), old_state(entry)
    is_changed = entry["wrote"] is not None and found not in (entry["wrote"], before)
    return {
        "app": entry["app"],
        "undoes": entry["undoes"],
        "changed": is_changed,
        "is_back": found == before,
        "loses": loses,
    }


def changed(deploy: str) -> dict[str, Entry]:
    """The `manifest`, without what went back at once."""
    return {file: each for file, each in manifest(deploy).items() if not each["undone"]}


def manifest(deploy: str) -> dict[str, Entry]:
    found: dict[str, Any] = json.loads(files.read(f"{BACKUPS}/{deploy}/manifest.json") or b"{}")
    return {file: entry(deploy, each) for file, each in found.items()}


def entry(deploy: str, found: Any) -> Entry:
    """As it is now; the bundle before 2026-11-24 wrote `kept` alone, later no `app`, and before 2026-11-29 no
    `undoes`."""
    is_whole = isinstance(found, dict) and "kept" in found
    known: Any = found if is_whole else {"deploy": deploy, "kept": found, "wrote": None}
    return cast(Entry, {"app": "", "undoes": "", "undone": False, **known})


def copies(file: str) -> dict[str, str]:
    """By deploy, oldest first: the path of its copy from before that deploy."""
    kept = {deploy: each[file]["kept"] for deploy in files.names(BACKUPS) if file in (each := changed(deploy))}
    return {deploy: copy for deploy, copy in kept.items() if isinstance(copy, str)}


def state(file: str) -> str:
    """What is there, to be compared: a digest, `-> target` for a symlink, empty for nothing."""
    return f"-> {os.readlink(file)}" if os.path.islink(file) else files.sha256(files.read(file)) or ""


def keep(deploy: str, file: str, wrote: str, undoes: str = "") -> Entry:
    """Back up what is at `file`, once per deploy, before `wrote` is there. Of older deploys of the same application the
    newest stay, and always the one that this one `undoes`."""
    folder = f"{BACKUPS}/{deploy}"
    known = manifest(deploy)
    kept: Any = known[file]["kept"] if file in known else None
    if file in known:
        pass
    elif os.path.islink(file):
        kept = {"link": os.readlink(file)}
    elif (old := files.read(file)) is not None:
        kept = folder + file
        files.make_private_folder(os.path.dirname(kept))
        files.write_whole(kept, old, 0o600, like=file)  # mode, owner and ACLs too, in a folder for root alone
    files.make_private_folder(folder)
    app = lock.holder().get("app", "")
    mine: Entry = {"deploy": deploy, "app": app, "undoes": undoes, "kept": kept, "wrote": wrote, "undone": False}
    files.write_whole(f"{folder}/manifest.json", json.dumps({**known, file: mine}).encode(), 0o600)
    others = [each for each in files.names(BACKUPS) if each != deploy]  # never the one in hand, whatever the clock says
    own = [each for each in others if all(entry["app"] == app for entry in manifest(each).values())]
    for other in own[: 1 - KEEP]:
        if other != undoes:
            files.remove(f"{BACKUPS}/{other}/manifest.json")  # first: half of a deploy cannot be undone
            files.remove_tree(f"{BACKUPS}/{other}")
    return mine


def remove_left_overs() -> None:
    """What a killed writer left beside a file that a deploy was about to change: it may hold a secret."""
    for deploy in files.names(BACKUPS):
        for file in manifest(deploy):
            files.remove(files.temporary(file))


def mark_undone(deploy: str, file: str) -> None:
    """The deploy has not changed this file after all: no rollback counts it, whatever somebody makes of it later."""
    with suppress(Failure, OSError):  # the disk may be full, or fail
        if file in (known := manifest(deploy)):
            known[file]["undone"] = True
            files.write_whole(f"{BACKUPS}/{deploy}/manifest.json", json.dumps(known).encode(), 0o600)


def require(entry: Entry, file: str) -> None:
    """Raises Failure where `restore` would."""
    kept = entry["kept"]
    if isinstance(kept, str) and not os.path.exists(kept):
        raise Failure(f"{kept} is gone, so {file} cannot be put back")


def old_state(entry: Entry) -> str:
    """The `state` that `restore` brings back."""
    kept = entry["kept"]
    return f"-> {kept['link']}" if isinstance(kept, dict) else state(kept) if kept else ""


def restore(file: str, entry: Entry, found: str) -> None:
    """Put back what `keep` kept, in the place of what had the state `found`.

    Raises Failure, also where somebody else has made another of it just now.
    """

    def look_again() -> None:
        if state(file) != found:
            raise Failure(f"{file} was changed by somebody else just now; run again")

    require(entry, file)
    kept = entry["kept"]
    if kept is None:
        look_again()
        files.remove(file)
    elif isinstance(kept, dict):
        files.place_symlink(file, kept["link"], look_again)
    else:
        files.write_whole(file, files.read(kept) or b"", 0o600, look_again, like=kept)


def put_back(file: str, entry: Entry, keep_aside: Callable[[], str]) -> str:
    """`restore`, after `keep_aside` has kept what is there; again if somebody changed it in between.

    Returns what `keep_aside` returned. Raises Failure.
    """
    while True:
        found, aside = state(file), keep_aside()
        try:
            restore(file, entry, found)
            mark_undone(entry["deploy"], file)
            return aside
        except Failure:
            if state(file) == found:
                raise


def set_aside(file: str, entry: Entry, always: bool = False) -> str:
    """A copy of what somebody else has made of the file since we wrote it; its path, empty where nobody has. `always`:
    also of what we wrote."""
    ours = () if always else (entry["wrote"],)
    if entry["wrote"] is None or state(file) in ("", *ours, old_state(entry)):
        return ""
    found, number, theirs = f"{BACKUPS}/{entry['deploy']}{file}.found", 1, files.read(file) or b""
    while files.read(found) not in (None, theirs):  # from an earlier time
        number += 1
        found = f"{BACKUPS}/{entry['deploy']}{file}.found.{number}"
    files.make_private_folder(os.path.dirname(found))
    files.write_whole(found, theirs, 0o600, like=file)
    return found
