"""Restart the API under pm2, see that it stays up, and put its files back if it does not."""

import http.client
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from remote import Failure, dotenv, files, loading, nginx, pm2, services
from remote.processes import Done, run
from remote.readings import Api
from remote.waiting_room import Door, open_room

AGAIN = 0.05  # seconds
ENDS = 5  # of each of its processes, after which the app is given up
GONE = 1  # seconds without a process after which pm2 is asked whether it has given up
HEALTH = 5  # seconds for an answer
ANSWERS = "/health answers"
LINES = 20  # of the app's error log
HIDDEN = 6  # characters from which on a value of .env is masked in them
ANY_ANSWER = 600  # an HTTP status below: the database, say, may be away
SURE = 1  # seconds of an app that nothing speaks against; by then pm2 (7.0: min_uptime) too takes a start for good


def restart(deploy: str, *, api: Api, keys: Sequence[str]) -> dict[str, Any]:
    """As `run_what_is_on_disk`. Raises Failure too where it runs, and some of `keys` stay hidden from it.

    Where /health said before that something is wrong, as without redis, it may say so afterwards: the files are not
    the reason, and nobody would be let in until the start has timed out twice.
    """
    was_hidden = pm2.hidden(api["app"], api["app_dir"], keys)
    before = health(api["port"])
    worst = ANY_ANSWER if before.startswith(ANSWERS) else 500
    seconds = run_what_is_on_disk(api=api, keys=keys, worst=worst)
    hidden = pm2.hidden(api["app"], api["app_dir"], keys)
    if hidden and not was_hidden:  # by pm2's record of an app that did not run
        seconds = run_what_is_on_disk(api=api, keys=keys, worst=worst)
        hidden = pm2.hidden(api["app"], api["app_dir"], keys)
    if hidden:  # in cluster mode a worker inherits from its daemon
        raise Failure(
            f"{api['app']} runs, but pm2's daemon itself was started with {', '.join(hidden)}, which hides that of "
            ".env: where the other apps may be restarted too, type pm2 save; pm2 kill; pm2 resurrect"
        )
    after = health(api["port"]) if before else ""
    said = [f"pm2: {api['app']} runs, but {after}, as before the restart: see its log"] if after else []
    return {"restart_seconds": seconds, "said": said}  # the seconds are for bin/bench


def run_what_is_on_disk(*, api: Api, keys: Sequence[str], worst: int = 500) -> float:
    """Restart it, or start it when pm2 does not know it; returns the seconds until it had proved stable.

    It must see `keys` as its .env has them now; /health must answer below `worst` (an HTTP status).

    Raises Failure, with the cause and the end of the app's log.
    """
    try:
        loading.check(api["app"], api["app_dir"], api["packages"])
    except Failure as error:
        raise Failure(f"{api['app']} was not restarted, because it would not come up: {error}") from None
    # the first guest waits for the stop, a start that fails, and the old files' start
    longest = pm2.kill_timeout(pm2.owner(api["app"]).home, api["app"]) + api["settle_time"] + 2 * api["start_timeout"]
    with open_room(api["port"], longest) as room, _others_stay_saved(api):
        _start_daemon(api)
        # Each command of pm2 takes half a second: two are spared where its daemon runs the app, or seems to.
        seems_known = bool(pm2.processes(api["app"])) and pm2.daemon_runs(api["app"])
        is_known = seems_known or _is_known(api)
        fresh = not is_known or bool(pm2.hidden(api["app"], api["app_dir"], keys))
        words = _anew(api) if fresh else ["restart", api["app"]]
        replaced = is_known and fresh
        if replaced:
            _pm2(api, "save")  # the way back: what it runs from may not be what the ecosystem file says today
        inherited = pm2.inherited(api["app"], api["app_dir"], keys)
        if replaced:
            _pm2(api, "delete", api["app"])
        fingerprint = services.fingerprint(pm2.files_read_at_start(api["app_dir"], api["packages"]))
        begun, logs = time.monotonic(), pm2.error_logs(api["app"])
        fresh = _start(api, words, seems_known, inherited)
        try:
            wait_until_stable(api, room, worst, logs)
        except Exception as error:  # whatever it is, the old files go back
            raise Failure(_recover(api, room, str(error), worst, replaced)) from None
        if fresh:
            _pm2(api, "save")
        services.after_start(services.of(api["app"]), pm2.processes(api["app"]), fingerprint)
        return round(time.monotonic() - begun, 3)


@contextmanager
def _others_stay_saved(api: Api) -> Iterator[None]:
    """pm2 saves its list as it is: an app that somebody deleted from it until the next boot would not come back."""
    home = pm2.owner(api["app"]).home
    before = pm2.saved(home)
    try:
        yield
    finally:
        now = pm2.saved(home)
        if lost := [each for each in before if each["name"] not in [other["name"] for other in now]]:
            files.write_whole(f"{home}/dump.pm2", json.dumps([*now, *lost], indent=2).encode(), 0o600)


def _pm2(api: Api, *arguments: str, inherited: Mapping[str, str] | None = None) -> Done:
    return pm2.command(api["app"], api["app_dir"], *arguments, inherited=inherited)


def _start_daemon(api: Api) -> None:
    """Where it has ended. By systemd, which may be about to: a command of pm2 would start a second one beside it."""
    unit = f"pm2-{pm2.owner(api['app']).user}.service"  # as `pm2 startup` names it
    if not pm2.daemon_runs(api["app"]) and run("systemctl", "restart", unit, timeout=90).status != 0:
        _pm2(api, "resurrect")


def _is_known(api: Api) -> bool:
    """A daemon with no app at all was started by a mere `pm2 ls`: saving it would lose the others at the next boot."""
    if not pm2.apps(api["app"], api["app_dir"]):
        _pm2(api, "resurrect")
    return pm2.known(api["app"], api["app_dir"]) is not None


def _anew(api: Api) -> list[str]:
    """What it is started from must load and name it, before pm2 forgets the app. Raises Failure."""
    try:
        return pm2.anew(api["app"], api["app_dir"])[0]
    except Failure as error:
        raise Failure(f"pm2 must start {api['app']} anew, and {error}") from None


def _start(api: Api, words: Sequence[str], seemed_known: bool, inherited: Mapping[str, str]) -> bool:
    """Returns whether it was started anew, from its ecosystem file, with what it has `inherited` of an earlier start.
    Raises Failure."""
    for attempt in (1, 2):
        fresh = words[0] == "start"
        done = _pm2(api, *words, inherited=inherited if fresh else None)
        if done.status == 0:
            return fresh
        if done.status < 0:  # it took too long, and may still be at it
            break
        # pm2 7.0 on a busy machine: "Process with pid … already exists", and the app is down. Or another daemon than
        # that of the app.
        if attempt == 1 and not fresh and seemed_known and not _is_known(api):
            words = _anew(api)
    undone = services.undo(services.of(api["app"]))
    if fresh:
        _pm2(api, "resurrect")  # what it has forgotten, as it was saved
    raise Failure(f"pm2 could not start {api['app']}: {done.line_with('Error')}{undone}")


def _recover(api: Api, room: Door, cause: str, worst: int, replaced: bool) -> str:
    """The files go back first, and the API is restarted on them; where pm2's own record of it was `replaced`, from that
    one. Returns the message; nothing in it stops that."""
    env, hidden, after, known = f"{api['app_dir']}/.env", list[str](), "", {}
    with suppress(Exception):  # a report never stops a recovery
        hidden += dotenv.load(env).values()
    undone = services.undo(services.of(api["app"]))
    with suppress(Exception):
        hidden += dotenv.load(env).values()
        _start_daemon(api)
        known = pm2.known(api["app"], api["app_dir"]) or {}
    log = known.get("pm_err_log_path", "")
    lines = last_lines(log, hidden)  # before the next start adds its own
    if undone.files or replaced:
        these = "the old files" if undone.files else "pm2's own record of it"
        try:
            room.hold()
            if replaced:
                _pm2(api, "delete", api["app"])
                _pm2(api, "resurrect")
            else:
                _pm2(api, "restart", api["app"])
            wait_until_stable(api, room, worst)
            after = f"\nwith {these}, it runs as before"
        except (Failure, OSError) as again:
            after = f"\nit does not stay up with {these} either: {again}"
    what = f"{api['app']} does not stay up ({known.get('status', 'unknown')}): {cause}"
    return f"{what}\nlast lines of {log or 'its log'}:\n{lines}{undone}{after}"


def last_lines(log: str, hidden: Sequence[str]) -> str:
    """The end of the app's error log, without the values of its .env."""
    text = files.tail(log)
    for value in sorted((each for each in hidden if len(each) >= HIDDEN), key=len, reverse=True):
        text = text.replace(value, "****")  # before it is cut: a value may have many lines
    return "\n".join(text.splitlines()[-LINES:])


def health(port: int, worst: int = 500) -> str:
    """Empty when GET /health is answered below `worst`, else what is wrong."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HEALTH)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"/health does not answer: {error or type(error).__name__}"
    finally:
        connection.close()
    return "" if status < worst else f"{ANSWERS} {status}"


def wait_until_stable(api: Api, room: Door, worst: int = 500, logs: Mapping[str, int] | None = None) -> None:
    """Returns when the app is up: its port answers /health below `worst`, and again when its processes have stayed the
    same for `settle_time`; for SURE where they are the first, and its error logs are still `logs`, as before its start.

    Who waits is let in at the first answer; but once the app has ended, only when it has proved stable.

    Raises Failure after `start_timeout` without an answer; when its processes have ended ENDS times (pm2 7.0 itself
    counts only starts that ended within `min_uptime`, a second: an app that takes longer to load and then ends would
    be started for ever); and at once when pm2 has given up, as it does after `max_restarts` such starts.
    """
    begun = seen = time.monotonic()  # `seen`: when a process of the app was last there
    answered: float | None = None  # when the processes now running first answered
    cause, last, ended, instances = "its port never opened", set[str](), 0, 1
    while time.monotonic() - begun < api["start_timeout"] + (0 if answered is None else api["settle_time"]):
        running = {process.id for process in pm2.processes(api["app"])}
        if not running or running != last:
            if last and answered is not None:
                cause = "it answered, then exited and was restarted"
            ended, instances = ended + len(last - running), max(instances, len(running))
            answered, last = None, running
            room.hold()
            if ended >= ENDS * instances:
                cause += f"; it ended {ended} times"
                break
        if running and answered is None and pm2.serves(api["app"], api["port"]):
            wrong = health(api["port"], worst)
            cause, answered = (wrong, None) if wrong else (cause, time.monotonic())
        is_stable = answered is not None and _is_proved(api, time.monotonic() - answered, ended, logs)
        if is_stable and (wrong := health(api["port"], worst)):
            cause, answered, is_stable = f"at first it answered; then {wrong}", None, False
        if (is_stable or (answered is not None and not ended)) and room.let_in():
            nginx.retry_upstreams(api["port"], api["start_timeout"])
        if is_stable:
            return
        if running:
            seen = time.monotonic()
        elif time.monotonic() - seen > GONE:
            if _given_up(api):
                break
            seen = time.monotonic()
        time.sleep(AGAIN)
    raise Failure(cause)


def _is_proved(api: Api, seconds: float, ended: int, logs: Mapping[str, int] | None) -> bool:
    """Has it been up for long enough? An app that is about to end has mostly said so, or has ended before."""
    if seconds >= api["settle_time"]:
        return True
    return seconds >= SURE and not ended and bool(logs) and pm2.error_logs(api["app"]) == logs


def _given_up(api: Api) -> bool:
    """Has pm2? A list that fails says nothing of the app; with `restart_delay` set pm2 never says `errored`.

    Where its daemon has ended, systemd starts one: to ask pm2 then would start a second one, and both the app.
    """
    with suppress(Failure, OSError):
        known = pm2.known(api["app"], api["app_dir"]) if pm2.daemon_runs(api["app"]) else None
        return (known or {}).get("status") in ("errored", "stopped")
    return False
