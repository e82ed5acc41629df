"""Roll back: the files that one deploy changed become what they were before it, all or none, and nginx and the API run
them."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from remote import Failure, backups, files, nginx, pm2, restart, services
from remote.processes import Process
from remote.readings import Api


def roll_back(deploy: str, *, undo: str, api: Api, keys: Sequence[str]) -> None:
    """Put back what the deploy `undo` changed; what stands there now is kept first. `keys` are the secrets of the API.

    It needs nothing but the backups. Raises Failure: nothing was changed, or, where nginx refused its configuration
    before already, all but the reload is done.
    """
    entries = backups.changed(undo)
    if not entries:
        raise Failure(f"there is no backup of deploy {undo}: it was pruned, or never was")
    for file, entry in entries.items():
        backups.require(entry, file)
    of_nginx = [file for file in entries if file.startswith(nginx.ETC)]
    of_api = [file for file in entries if file not in of_nginx]
    counting = _counting(api, keys) if of_api else None
    before = nginx.complaint() if of_nginx else ""
    notes = {service: services.load_note(service) for service in ("nginx", services.of(api["app"]))}
    done: list[str] = []
    for service in notes:
        services.settle(service)  # a restart that fails is to bring back what is there now, not what was there earlier
    try:
        _put_back(deploy, undo, "nginx", nginx.workers(), of_nginx, done)
        after = nginx.complaint() if of_nginx else ""
        if after and not before:
            raise Failure(f"nginx refuses the files as they were before deploy {undo}, so nothing was changed: {after}")
        _put_back(deploy, undo, services.of(api["app"]), pm2.processes(api["app"]), of_api, done)
        if counting is not None:
            restart.run_what_is_on_disk(api=api, keys=counting, worst=restart.ANY_ANSWER)
    except Exception as error:
        told = _take_back(deploy, done, notes)
        raise Failure("; ".join([files.why(error), *told])) from None
    services.settle("nginx")  # else the session would put the files back once more
    if after:
        raise Failure(f"the files are back, but nginx still refuses its configuration, and runs the old one: {after}")
    if of_nginx:
        nginx.reload(deploy, timeout=api["start_timeout"])


def _put_back(
    deploy: str, undo: str, service: str, processes: Sequence[Process], of_service: Sequence[str], done: list[str]
) -> None:
    """Adds each file to `done`. Raises Failure."""
    entries = {file: entry for file, entry in backups.changed(undo).items() if file in of_service}
    if entries:
        states = {file: backups.old_state(entry) for file, entry in entries.items()}
        found = {file: backups.state(file) for file in entries}
        kept = {file: backups.keep(deploy, file, wrote=states[file], undoes=undo) for file in entries}
        services.before_change(service, processes, kept)
    for file, entry in entries.items():
        backups.restore(file, entry, found[file])
        done.append(file)


def _take_back(deploy: str, done: Sequence[str], notes: Mapping[str, Any]) -> list[str]:
    """Take back what the rollback wrote, except what a failed restart has already put back. A file that we had not
    reached may be somebody else's. Returns what there is to tell."""
    written = {file for service in notes for file in services.load_note(service)["files"]}
    told, stuck = list[str](), list[str]()
    for file, entry in backups.manifest(deploy).items():
        now = backups.state(file)
        if file in written and (file in done or now == entry["wrote"]) and now != backups.old_state(entry):
            try:
                if aside := backups.put_back(file, entry, partial(backups.set_aside, file, entry)):
                    told.append(f"somebody else's version of {file} is now in {aside}")
            except (Failure, OSError) as error:
                stuck.append(f"{file} could not be put back: {files.why(error)}")
    with suppress(Failure, OSError):  # the disk is full: what is back can be put back once more
        for service, note in notes.items() if not stuck else ():  # the session tries again, by the notes as they are
            services.save_note(service, note)
    return told + stuck


def _counting(api: Api, keys: Sequence[str]) -> Sequence[str]:
    """The keys whose values in .env are to count. Raises Failure where a restart could only do harm."""
    try:
        pm2.read(api=api, keys=keys)
    except Failure:  # for a key that the ecosystem file sets, say: no reason to leave the files as they are
        pm2.read(api=api, keys=[])
        return []
    return keys
