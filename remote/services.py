"""Services: does one run what is on disk? Our notes of what ran when, and the files' own times.

A *service* is `nginx`, or an app of pm2's: `of`. Before each change to its files we note its processes; after
each restart of ours, the processes that it started, and the fingerprint of what they read.
"""

import json
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from remote import Failure, backups, files, lock
from remote.processes import Process
from remote.readings import Entry

STATE = "/var/lib/ai-admin-deploy"
PROVED = 60  # seconds that processes must have run to count as good


def _stat(path: str, follow: bool) -> list[float] | None:
    """Inode, size and change time in ms; None when there is nothing."""
    with suppress(OSError):
        stat = os.stat(path, follow_symlinks=follow)
        changed = stat.st_ctime_ns // 10**9 * 1e3 + stat.st_ctime_ns % 10**9 / 1e6
        return [stat.st_ino, stat.st_size, int(changed) if changed.is_integer() else changed]
    return None


def fingerprint(paths: Iterable[str]) -> str:
    """Changes with every change to the files, by anyone, whatever the clock says: each one's inode and change time.

    To the byte as the JavaScript of commit c58db06 made it: its notes are on hosts.
    """
    lines = [[path, _stat(path, follow=False), _stat(path, follow=True)] for path in paths]
    texts = sorted(json.dumps(line, separators=(",", ":"), ensure_ascii=False) for line in lines)
    return files.sha256(files.content(",".join(texts))) or ""


def is_stale(service: str, processes: Sequence[Process], paths: Sequence[str]) -> bool:
    """Is what runs older than what is on disk? Three witnesses, the best first.

    Our note, made before each change of ours, of the processes that ran then. For processes that we started: the
    files' fingerprint from before their start. For those that somebody else started: the files' times against
    theirs, which a clock that was set meanwhile can make wrong.
    """
    ids = {process.id for process in processes}
    started = load_note(f"{service}.started")
    if ids & set(load_note(service)["processes"]):
        return True
    if ids & set(started["processes"]):
        return bool(started["fingerprint"] != fingerprint(paths))
    since = min(process.started for process in processes) * 1000
    stats = [_stat(path, follow) for path in paths for follow in (False, True)]
    return any(stat[2] > since for stat in stats if stat)


def before_change(service: str, processes: Sequence[Process], kept: dict[str, Entry]) -> None:
    """These processes run what was there before the change; `kept` are the backups of the files that change. Files
    written earlier that have not proved good keep their backups."""
    ids = [process.id for process in processes]
    old = load_note(service)
    if old["files"] or not ids or set(ids) & set(old["processes"]):
        ids = list(dict.fromkeys([*old["processes"], *ids]))
        earlier = {file: backups.entry("", found) for file, found in old["files"].items()}
        for file, entry in kept.items():
            earlier[file] = {**entry, "kept": earlier.get(file, entry)["kept"]}
        kept = earlier
    save_note(service, {"processes": ids, "files": kept})


def after_start(service: str, processes: Sequence[Process], fingerprint: str) -> None:
    """The service runs what is on disk: its processes were started when the files had this fingerprint."""
    ids = [process.id for process in processes]
    save_note(f"{service}.started", {"processes": ids, "fingerprint": fingerprint})
    files.remove(f"{STATE}/{service}.json")


def replace_file(
    deploy: str,
    service: str,
    processes: Sequence[Process],
    path: str,
    content: bytes,
    expected: str | None,
    mode: int,
    owner: files.Ids | None = None,
) -> None:
    """Replace a file that the service reads at its start, and keep the old one. A symlink stays one.

    A new one gets `mode` and `owner`.
    `expected` is the SHA-256 that the plan saw (None: no file). Where it is another now, or becomes it until only the
    rename is left, somebody else is at work: raises Failure, and nothing is written.
    """
    target, note = os.path.realpath(path), load_note(service)

    def last() -> None:
        before_change(service, processes, kept)
        try:
            files.require(target, expected)
        except Failure:
            save_note(service, note)  # else an undo would take what they wrote for ours
            raise

    files.require(target, expected)
    kept = {target: backups.keep(deploy, target, wrote=files.sha256(content) or "")}
    try:
        files.write_whole(target, content, mode, last, owner=owner)
    except Failure:
        backups.mark_undone(deploy, target)
        raise


class Undone(NamedTuple):
    """`files` are back, each with the place of what was left aside; `stuck` are not, each with the reason."""

    files: list[str]
    stuck: list[str]

    def __str__(self) -> str:
        """For a message; empty where there is nothing to tell."""
        back = f"; put back as they were: {', '.join(self.files)}" if self.files else ""
        return back + "".join(f"; could not be put back: {each}" for each in self.stuck)


def undo(service: str, deploy: str = "") -> Undone:
    """The files that the service has not run yet become what they were; with `deploy` only those that it wrote.

    What somebody else had made of a file meanwhile is left aside; so is what an earlier deploy had written, which may
    have made a secret that is nowhere else. A file that cannot go back, as on a full disk, does not stop the others.
    """
    undone = Undone([], [])
    try:
        note, mine = load_note(service), lock.holder().get("deploy", "")
    except OSError as error:  # of a disk that fails
        return Undone([], [f"what {service} has not loaded, {STATE}/{service}.json: {files.why(error)}"])
    for file, found in list(note["files"].items()):
        entry = backups.entry("", found)
        if deploy and entry["deploy"] != deploy:
            continue
        try:
            undone.files.append(file + backups.put_back(file, entry, partial(_kept_aside, file, entry, mine)))
            del note["files"][file]
        except (Failure, OSError) as error:
            undone.stuck.append(f"{file}: {files.why(error)}")
    with suppress(Failure, OSError):  # the disk is full: to put back once more what is back does no harm
        save_note(service, note) if note["files"] else files.remove(f"{STATE}/{service}.json")
    return undone


def _kept_aside(file: str, entry: Entry, mine: str) -> str:
    """In words, what is kept of what is there now."""
    if aside := backups.set_aside(file, entry):
        return f" (somebody else had changed it since: their text is in {aside})"
    if mine not in ("", entry["deploy"]) and (aside := backups.set_aside(file, entry, always=True)):
        return f" (what deploy {entry['deploy']} had written is in {aside})"
    return ""


def settle_outlived(service: str, processes: Sequence[Process]) -> None:
    """What an earlier deploy wrote stays, where processes that were started since, by whomever, have proved it good.

    Else a later failure would put back what was there weeks ago: that deploy may have been killed before its restart,
    and the host have been booted.
    """
    note, mine = load_note(service), lock.holder().get("deploy", "")
    if (_run_for(note, processes) or 0) > PROVED:
        own = {file: each for file, each in note["files"].items() if backups.entry("", each)["deploy"] == mine}
        if own != note["files"]:
            save_note(service, {**note, "files": own})


def _run_for(note: dict[str, Any], processes: Sequence[Process]) -> float | None:
    """Seconds that the youngest of these has run what was written; None where one of them was there before."""
    if not processes or {process.id for process in processes} & {*note["processes"]}:
        return None
    return time.time() - max(process.started for process in processes)


def is_unproved(service: str, processes: Sequence[Process]) -> bool:
    """Has somebody else started these on what a deploy wrote, and so short a time ago that they may still end of it?

    Where pm2's daemon dies between a token's writing and its restart, systemd starts the API on it.
    """
    note = load_note(service)
    seconds = _run_for(note, processes)
    return bool(note["files"]) and seconds is not None and seconds <= PROVED


def settle(service: str) -> None:
    """What was written stays, though the service does not run it yet."""
    if load_note(service)["files"]:
        save_note(service, {**load_note(service), "files": {}})


def of(app: str) -> str:
    """The service of a pm2 app, whatever its name."""
    return f"app-{app}"


def noted() -> list[str]:
    """The services that have a note, nginx first."""
    found = [name.removesuffix(".json") for name in files.names(STATE) if name.endswith(".json")]
    return sorted((name for name in found if not name.endswith((".started", ".packages"))), reverse=True)


def take_over(app: str) -> None:
    """The notes of versions before 2026-11-29, `api` for all apps of a host, become those of the first one deployed
    since; not where they tell of a file of another's."""
    told = {backups.entry("", each)["app"] for each in load_note("api")["files"].values()}
    renamed = {"api": of(app), "api.started": f"{of(app)}.started", "packages": f"{of(app)}.packages"}
    for old, new in renamed.items() if app and told <= {"", app} else ():
        if os.path.exists(f"{STATE}/{old}.json") and not os.path.exists(f"{STATE}/{new}.json"):
            os.rename(f"{STATE}/{old}.json", f"{STATE}/{new}.json")


def load_note(name: str) -> dict[str, Any]:
    return {"processes": [], "files": {}, **json.loads(files.read(f"{STATE}/{name}.json") or b"{}")}


def save_note(name: str, note: dict[str, Any]) -> None:
    files.make_private_folder(STATE)
    files.write_whole(f"{STATE}/{name}.json", json.dumps(note).encode(), 0o600)
