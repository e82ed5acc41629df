"""nginx: the site's files, the configuration on disk and whether it runs; write the site, reload."""

import os
import re
import time
from contextlib import suppress
from fnmatch import fnmatch
from functools import partial

from remote import Failure, backups, files, services
from remote.processes import Done, Process, identify, run
from remote.readings import Configuration

ETC = "/etc/nginx"
AGAIN = 0.02  # seconds


def workers() -> list[Process]:
    """Those that serve, without those that only finish old connections after a reload."""
    master = files.read_text("/run/nginx.pid")
    children = files.read_text(f"/proc/{master}/task/{master}/children").split() if master else []
    serving = "nginx: worker process"
    found = [identify(pid) for pid in children if files.read_text(f"/proc/{pid}/cmdline").rstrip("\0 ") == serving]
    return [worker for worker in found if worker]


def _complaint(done: Done) -> str:
    worst = re.search(r".*\[(emerg|alert|crit)\].*", done.stderr)
    return (worst[0] if worst else done.line_with("nginx:")).removeprefix("nginx: ")


def dump() -> str:
    """`nginx -T` (1.26: 20 ms): the configuration on disk, with all that it includes. Raises Failure."""
    done = run("nginx", "-T")
    if done.status != 0:
        remedy = "nginx refuses its configuration as it is: fix it until `nginx -t` passes, then run again"
        raise Failure(f"{_complaint(done)} ({remedy})")
    return files.text(done.stdout)


def files_of(dump: str) -> list[str]:
    """Every file that `nginx -T` printed; and the folders that a pattern includes files of, where one file less is a
    change too. Not the other folders: certbot 4 makes and removes a lock in /etc/letsencrypt and /etc/nginx at each
    start, and its timer starts it twice a day."""
    loaded = re.findall(r"^# configuration file (.+):$", dump, re.MULTILINE)
    included = re.findall(r"^[^#\n]*?\binclude\s+[\"']?([^\"';\s]*[*?[][^\"';\s]*)", dump, re.MULTILINE)
    folders = [os.path.dirname(os.path.join(ETC, pattern)) for pattern in included]
    there = list(dict.fromkeys(map(os.path.dirname, loaded)))
    return [*loaded, *dict.fromkeys(each for name in folders for each in (name, *there) if fnmatch(each, name))]


def read(*, site: str, domain: str) -> Configuration:
    """A worker that crashed is replaced by one younger than what the master still holds: so the oldest one counts."""
    configuration, serving = dump(), workers()
    loaded, available = files_of(configuration), files.read(f"{ETC}/sites-available/{site}")
    return {
        "dump": configuration,
        "links": {file: real for file in loaded if (real := os.path.realpath(file)) != file},
        "available": None if available is None else files.text(available),
        "certificate": os.path.exists(f"/etc/letsencrypt/live/{domain}/fullchain.pem"),
        "running": bool(serving),
        "stale": bool(serving) and services.is_stale("nginx", serving, loaded),
    }


def complaint() -> str:
    """What `nginx -t` complains of; empty when it takes the configuration on disk."""
    done = run("nginx", "-t")
    return "" if done.status == 0 else _complaint(done)


def write_site(deploy: str, *, file: str, content: str, expected: str | None, link: str, replaced: str | None) -> None:
    """Text into `file`, and a symlink to it in the place of `link`, if given; `nginx -t` decides whether they stay.

    `expected` and `replaced` are the SHA-256 of what the plan saw at the two. Raises Failure.
    """
    serving = workers()
    if link:
        files.require(link, replaced)
    services.replace_file(deploy, "nginx", serving, file, files.content(content), expected, 0o644)
    if link:
        note, kept = services.load_note("nginx"), backups.keep(deploy, link, wrote=f"-> {file}")
        services.before_change("nginx", serving, {link: kept})
        try:
            files.place_symlink(link, file, partial(files.require, link, replaced))
        except Failure:
            services.save_note("nginx", note)  # else an undo would take what they wrote for ours
            backups.mark_undone(deploy, link)
            raise
    if refused := complaint():
        raise Failure(f"nginx refuses the new site{services.undo('nginx')}: {refused}")


def _error_log(configuration: str) -> str:
    """Of its master: the first that is named, as nginx.conf comes first, else the one that Debian compiled in."""
    named = re.search(r"^\s*error_log\s+(/[^\s;]+)", configuration, re.MULTILINE)
    return named[1] if named else "/var/log/nginx/error.log"


def reload(deploy: str, *, timeout: float) -> None:
    """Make nginx run what is on disk, and wait for its new workers: `systemctl reload` returns before they come."""
    if refused := complaint():
        raise Failure(f"nginx refuses its configuration, so it was not reloaded: {refused}")
    old = {worker.id for worker in workers()}
    configuration = dump()
    fingerprint, log = services.fingerprint(files_of(configuration)), _error_log(configuration)
    length = files.size(log)
    verb = "reload" if old else "start"
    if run("systemctl", verb, "nginx", timeout=90).status != 0:
        raise Failure(f"systemctl could not {verb} nginx: journalctl -u nginx")
    deadline = time.monotonic() + timeout
    while all(worker.id in old for worker in workers()):
        if time.monotonic() > deadline:
            # not a visitor's failed handshake, which is `crit`
            emergency = re.search(r".*\[emerg\].*", files.tail(log, files.size(log) - length))
            why = emergency[0] if emergency else f"see {log}"
            raise Failure(f"nginx did not load its configuration{services.undo('nginx')}: {why}")
        time.sleep(AGAIN)
    services.after_start("nginx", workers(), fingerprint)


def retry_upstreams(port: int, timeout: float) -> None:
    """Make nginx try an API that is back, at once, where it may consider it down. New workers know of no failures.

    nginx 1.26 considers an upstream of two addresses, as `localhost` is, down for 10 s after both refused (its
    fail_timeout): what the operator's own lines pass there would fail so much longer than the API is down.
    """
    serving = workers()
    with suppress(Failure):  # the API's restart must not fail for it
        configuration = dump()
        if not serving or not re.search(rf"^[^#]*\blocalhost:{port}\b", configuration, re.MULTILINE):
            return
        # what somebody else has changed since is not for us to put into force here
        if not services.is_stale("nginx", serving, files_of(configuration)):
            reload("", timeout=timeout)
