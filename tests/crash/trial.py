"""Every work, struck at every one of its calls: what is wrong then, and after the next run."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from remote import backups, pm2, services
from tests.crash.strike import Strike, struck
from tests.crash.works import FIRST, WORKS, Work, enter, state

AGAIN = "20261123T000001Z"
KILL, KILL_AND_POWER = "killed", "killed with the host"  # with its guardian, and without: the power was cut
ERRORS = {name: getattr(errno, name) for name in ("EIO", "ENOSPC", "EROFS", "EINTR")}
LASTING = {"ENOSPC from then on": errno.ENOSPC, "EROFS from then on": errno.EROFS}
KILLS = (KILL, KILL_AND_POWER)
KINDS = (*KILLS, *ERRORS, *LASTING)

States = dict[str, str]


def nothing() -> None:
    """No guard is taken out."""


class Result(NamedTuple):
    """Of one work and one kind of strike: the calls that were struck, and by strike what was wrong."""

    work: str
    kind: str
    calls: list[str]
    problems: dict[str, list[str]]


def states(work: Work, folder: Path) -> States:
    return {path: state(folder / path) for path in work.watched}


def _fresh(work: Work, folder: Path) -> States:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    work.prepare(folder)
    return states(work, folder)


def _ends(work: Work, folder: Path) -> States:
    _fresh(work, folder)
    done = struck(lambda: work.do(folder, FIRST))
    assert not done.failure, done.failure
    return states(work, folder)


def every_call(name: str, kind: str, folder: Path, sabotage: Callable[[], object] = nothing) -> Result:
    """In a process of its own: the folders of `remote` are set for it. `sabotage` takes a guard out."""
    enter(folder)
    pm2.run_node = cache(pm2.run_node)  # it is asked the same each time, and changes no file
    sabotage()
    work = WORKS[name]
    passing = _ends(WORKS[work.passing], folder) if work.passing else {}
    new = _ends(work, folder)
    old = _fresh(work, folder)
    work.do(folder, FIRST)  # what Node says is known from now on
    assert states(work, folder) == new
    _fresh(work, folder)
    calls = struck(lambda: work.do(folder, FIRST)).calls
    problems = {}
    for at, call in enumerate(calls, 1):
        _fresh(work, folder)
        error = {**ERRORS, **LASTING}.get(kind, 0)
        struck(lambda: work.do(folder, FIRST), Strike(at, error, kind in LASTING))
        found = _wrong(work, folder, old, new, passing)
        if kind != KILL_AND_POWER:
            found += _guarded(work, folder, old, new)
        if found := found or _healed(work, folder, new, passing):
            problems[f"{name}: {kind} at {call} {at} of {len(calls)}"] = found
    shutil.rmtree(folder)
    return Result(name, kind, calls, problems)


def _wrong(work: Work, folder: Path, *allowed: States) -> list[str]:
    """What must never be, after a strike and before anybody's help. The first of `allowed` is the old."""
    found, old = list(work.check(folder)), allowed[0]
    for path, now in states(work, folder).items():
        if now not in [each[path] for each in allowed if each]:
            found.append(f"{path} is neither old nor new: {now!r}")
        if work.is_noted and now != old[path]:
            kept = [entry["kept"] for file, entry in backups.manifest(FIRST).items() if file.endswith(path)]
            if not any(_as_kept(each) == old[path] for each in kept):
                found.append(f"{path} is new, and there is no backup of the old one: {kept}")
            notes = [file for service in ("app-api", "nginx") for file in services.load_note(service)["files"]]
            if not any(file.endswith(path) for file in notes):
                found.append(f"{path} is new, and no note says that it is not loaded")
    return found


def _as_kept(kept: object) -> str:
    return state(Path(kept)) if isinstance(kept, str) else f"-> {kept['link']}" if isinstance(kept, dict) else ""


def _guarded(work: Work, folder: Path, old: States, new: States) -> list[str]:
    """What the session of the deploy does: nothing has loaded these files."""
    if not work.is_noted and not work.is_loaded:
        return []
    done = struck(lambda: [services.undo(service, FIRST) for service in ("nginx", "app-api")])
    now = states(work, folder)
    loaded = [new, *(_mixed(old, new, service) for service in ("app/", "etc/"))] if work.is_loaded else []
    return [] if now in [old, *loaded] and not done.failure else [f"not put back: {done.failure or now}"]


def _mixed(old: States, new: States, service: str) -> States:
    """The files of this service are new, for it has loaded them, and the other's are not."""
    return {path: new[path] if path.startswith(service) else old[path] for path in old}


def _healed(work: Work, folder: Path, new: States, passing: States) -> list[str]:
    """The next run brings what this one should have, and leaves nothing beside the files."""
    struck(backups.remove_left_overs)  # as its session does
    done = struck(lambda: (work.again or work.do)(folder, AGAIN))
    if done.failure:
        return [f"the next run fails: {done.failure}"]
    now = states(work, folder)
    found = [] if now in (new, passing) else [f"the next run does not heal: {now}"]
    left = [
        each
        for each in folder.rglob(".*ai-admin-deploy*")
        if each.relative_to(folder).parts[0] not in ("state", "backups")  # ours alone, and their names are used again
    ]
    return [*found, *work.check(folder), *(f"left behind: {each}" for each in left)]


def run(jobs: Iterable[tuple[str, str]], folder: Path, sabotage: Callable[[], object] = nothing) -> Iterator[Result]:
    """These works with these kinds of strikes, two at a time."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        begun = [pool.submit(every_call, *job, folder / f"{number}", sabotage) for number, job in enumerate(jobs)]
        for each in begun:
            yield each.result()
