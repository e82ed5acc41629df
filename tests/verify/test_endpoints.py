"""The API: does it answer and stay up, run what is on disk, and start at boot? Has its disk room?"""

from __future__ import annotations

import re
from typing import Any

import pytest
from testinfra.host import Host

from contract import Contract
from rules import HEALTH_CHECK, PARTNER_TOKEN, ROUTES
from settings import Settings
from tests.verify.checks import is_landing_page, running_secrets, through_nginx
from tests.verify.outside import Outside
from tests.verify.plugin import DEPLOY, PASS_ON, Seen, Unfit, component, needs
from tests.verify.target import Answers, Pm2, Target
from tests.verify.test_site import ANEW, newest
from tests.verify.test_surroundings import OF_REDIS

ENTRY = "/auth/yclients/redirect"
FIRST = f"mount {ROUTES} before the other router in the application's source, then {{pm2}} restart {{app}}"
LOG = "{pm2} logs {app} --lines 50 --nostream"
STARTUP = "pm2 startup systemd -u {user} --hp {home}; {pm2} save"
FULL = 95  # percent
READ_ONLY = "see why: dmesg | tail; then mount -o remount,rw $(findmnt -no TARGET -T {app_dir})"
OFTEN = 4  # ends in an hour
# Why pm2 itself restarts it -> in words, and what to do in ecosystem.config.js
OF_PM2 = {
    "memory": ("because it exceeds its `max_memory_restart`", "raise `max_memory_restart`"),
    "watch": ("because a file in its folder was written", "remove `watch`"),
}
CODE = r"-type f \( -name '*.js' -o -name '*.cjs' -o -name '*.mjs' -o -name '*.ts' -o -name '*.json' \)"


@component("endpoints", f"{DEPLOY}; if it does not stay up: {LOG}")
def test_pm2_runs_the_api(pm2: Pm2, settings: Settings) -> None:
    needs(pm2.workers or not pm2.holders, "another process holds its port")
    assert pm2.workers, f"pm2 does not run {settings.api_app}"


@component("endpoints", ANEW)
def test_pm2_runs_it_once(pm2: Pm2, settings: Settings) -> None:
    """In cluster mode there are several."""
    forks = [worker for worker in pm2.workers if not worker.cluster]
    assert len(forks) < 2, f"pm2 runs {settings.api_app} {len(forks)} times, and only one of them can have the port"


@component("endpoints")
def test_the_port_is_held_by_pm2s_process(pm2: Pm2, settings: Settings) -> None:
    """In cluster mode pm2's daemon holds it, and hands the connections to the workers."""
    own = {worker.pid for worker in pm2.workers} | {pm2.daemon for worker in pm2.workers if worker.cluster}
    if pm2.holders and not own & {*pm2.holders}:
        holders = " ".join(map(str, pm2.holders))
        raise Unfit(
            f"port {settings.api_port} is held by a process that is not pm2's ({holders}): a copy started by hand?",
            f"kill {holders}; {{pm2}} restart {{app}}",
        )


@component("endpoints", "{other_pm2} delete {app} && {other_pm2} save --force")
def test_no_other_pm2_has_the_api(pm2: Pm2, settings: Settings) -> None:
    others = ", ".join(pm2.others)
    why = "both start it, and one cannot have the port"
    assert not others, f"a second pm2, of user {others}, has {settings.api_app} too: {why}"


@component("endpoints", "{pm2} restart {app}")
def test_it_is_not_suspended(pm2: Pm2) -> None:
    pids = _suspended(pm2)
    assert not pids, f"the API is suspended by a signal (SIGSTOP), and answers nothing: process {pids[0]}"


def _suspended(pm2: Pm2) -> list[int]:
    return [worker.pid for worker in pm2.workers if worker.state in ("T", "t")]


@component("endpoints", ANEW)
def test_it_runs_in_its_folder(host: Host, pm2: Pm2, settings: Settings) -> None:
    """It reads `.env` in its working directory."""
    wanted = host.run("readlink -f %s", settings.app_dir).stdout.strip()
    others = [worker.folder for worker in pm2.workers if worker.folder != wanted]
    assert not others, f"the API runs in {others[0]} and reads .env there, not in {settings.app_dir}"


@component("endpoints", LOG)
def test_it_does_not_crash(pm2: Pm2) -> None:
    """Nor does pm2 restart it, which ends each WebSocket and WhatsApp session as well."""
    of_minute, of_ten, of_hour = pm2.ends
    many, what = (of_minute, "minute") if of_minute > 1 else (of_hour, "hour")
    if pm2.why and (of_minute > 1 or (of_hour >= OFTEN and of_ten)):
        why, remedy = OF_PM2[pm2.why]
        restarts = f"pm2 has restarted the API {many} times in the last {what}, {why}"
        raise Unfit(restarts, f"{remedy} of {{app}} in {{app_dir}}/ecosystem.config.js; then on the host: {ANEW}")
    assert of_minute < 2, f"the API crashed {of_minute} times in the last minute: a crash loop"
    assert of_hour < OFTEN or not of_ten, f"the API crashed {of_hour} times in the last hour, and still does"


@component("endpoints", LOG)
def test_health(host: Host, answers: dict[str, Answers], pm2: Pm2, seen: Seen) -> None:
    needs(pm2.workers or pm2.holders, "pm2 does not run the API")
    needs(not _suspended(pm2), "the API is suspended")
    found = answers["health"].direct
    assert found.status, f"nothing answers on the API's port: {found.body}"
    if found.status == 200:
        seen("/health 200")
        return
    listed = "systemctl list-units --all --plain --no-legend 'redis*.service' 'postgresql@*.service'"
    down = [line.split()[0] for line in host.run(listed).stdout.splitlines() if line.split()[2] != "active"]
    what = f"{' and '.join(down)} does not run" if down else "redis or the database is down"
    refused = [remedy for code, remedy in OF_REDIS.items() if code in found.body]  # by redis, which runs
    raise Unfit(
        f"/health answers {found.status}: {what}: {found.body[:120]}",
        f"systemctl start {' '.join(down)}" if down else (refused or [LOG])[0],
    )


@component("endpoints")
def test_health_check_route(answers: dict[str, Answers], settings: Settings) -> None:
    if not settings.health_check:
        return  # disabled in the settings
    status = answers["health_check"].direct.status
    needs(status, "the API does not answer")
    assert status != 404, f"there is no route {HEALTH_CHECK}"


@component("endpoints", "remove the older route from the application's source, then {pm2} restart {app}")
def test_no_older_route_answers(answers: dict[str, Answers], settings: Settings) -> None:
    if not settings.health_check:
        return
    found = answers["health_check"].direct
    needs(found.status not in (0, 404), "the route does not answer")
    assert running_secrets(answers) is not None, (
        f"an older route, mounted before ours, answers in its place: {HEALTH_CHECK} {found.status} {found.body[:60]}"
    )


@component("endpoints", otherwise=PASS_ON)
def test_health_check_through_nginx(host: Host, answers: dict[str, Answers], settings: Settings, seen: Seen) -> None:
    inside = answers["health_check"].direct
    if not settings.health_check:
        return
    needs(inside.status == 200, "the route itself does not answer")
    found = through_nginx(host, answers, "health_check")
    assert found.status == 200 and found.type == inside.type, (
        f"nginx serves the landing page for {HEALTH_CHECK}"
        if is_landing_page(found, answers)
        else f"{HEALTH_CHECK} answers 200 on the API's port, but {found.status} through nginx"
    )
    seen(f"{HEALTH_CHECK} 200 through nginx")


@component("endpoints", otherwise=PASS_ON)
def test_redirect_wants_a_salon(host: Host, answers: dict[str, Answers]) -> None:
    """400 without salon_id, or 503 without a partner token. With a salon_id it would write to the database."""
    found = through_nginx(host, answers, "redirect")
    assert not is_landing_page(found, answers), "nginx serves the landing page for /auth/: the location is missing"
    status = answers["redirect"].direct.status
    assert status in (400, 503), f"{ENTRY} without salon_id answers {status}, not 400"
    assert found.status == status, f"{ENTRY} answers {status} on the API's port, but {found.status} through nginx"


@component("endpoints", f"ask the application's developers: what else does {ROUTES} want?")
def test_redirect_lets_salons_in(
    answers: dict[str, Answers], dotenv: dict[str, Any], contract: Contract, settings: Settings
) -> None:
    needs(PARTNER_TOKEN in contract.keys, "the source does not read it: see Partner Token")
    found = answers["redirect"].direct
    loaded = not settings.health_check or (running_secrets(answers) or {}).get("partner_token")
    has = dotenv["keys"][PARTNER_TOKEN]["kind"] == "set" and loaded
    assert not has or found.status != 503, f"{ENTRY} answers 503, though {PARTNER_TOKEN} is set: {found.body[:80]}"


@component("endpoints", FIRST)
def test_redirect_is_answered_by_the_marketplace(answers: dict[str, Answers], contract: Contract) -> None:
    """Another router may answer 400 too: the body tells. What the right one can say stands in its source."""
    found = answers["redirect"].direct
    needs(found.status in (400, 503), f"{ENTRY} does not answer")
    own = [route for route in contract.routes if (route.path, route.place.file) == (ENTRY, ROUTES)]
    texts = [" ".join(text.split()) for route in own for text in route.texts if len(text.strip()) > 4]
    needs(texts, f"what {ENTRY} answers cannot be read in {ROUTES}")
    body = " ".join(found.body.split())
    assert any(text in body for text in texts), (
        f"another router answers {ENTRY}, and lets no salon in: {found.status} {body[:60]}"
    )


@component("endpoints", FIRST)
def test_no_router_stands_before_the_marketplace(contract: Contract) -> None:
    unread = [each for each in contract.unread if "mounted" in each]
    needs(not unread, f"the source does not show {', '.join(unread)}")
    shadowed = [f"{other.place} answers {route.path} before {route.place}" for route, other in contract.shadowed()]
    assert not shadowed, "; ".join(shadowed)


@component("endpoints", "fix the route: it must refuse a request without a token that it has signed")
@pytest.mark.parametrize("token", ["without_a_token", "with_an_invalid_token"])
def test_qr_wants_a_token(answers: dict[str, Answers], token: str) -> None:
    """A valid one is not tried, not even for no salon: the routes make a session for whatever id they are given."""
    found = answers[f"qr_{token}"].direct
    needs(found.status, "the API does not answer")
    said = f"{found.status}, not 401: {' '.join(re.sub('<[^>]*>', ' ', found.body).split())[:60]}"
    assert found.status == 401, f"POST /marketplace/api/qr {token.replace('_', ' ')} answers {said}"


@component("endpoints")
@pytest.mark.parametrize("kind", ["env", "source", "packages"])
def test_runs_what_is_on_disk(host: Host, pm2: Pm2, settings: Settings, kind: str) -> None:
    needs(pm2.workers, "pm2 does not run the API")
    app, modules = settings.app_dir, f"{settings.app_dir}/node_modules"
    paths = {
        "env": ([settings.dotenv], ""),
        "source": ([f"{app}/src"], CODE),
        "packages": (
            [f"{modules}/.package-lock.json", *(f"{modules}/{name}/package.json" for name in settings.packages)],
            "",
        ),
    }
    file = newest(host, paths[kind][0], pm2.since, paths[kind][1])
    assert not file, f"{file} was changed after the API started: the API still runs the old one"


@component("endpoints", STARTUP)
def test_starts_at_boot(host: Host, pm2: Pm2) -> None:
    unit = f"pm2-{pm2.user}"
    assert host.service(unit).is_enabled, f"pm2 does not start at boot: {unit}.service is not enabled"


BY_UNIT = "{pm2} kill; systemctl restart pm2-{user} (why it failed: journalctl -u pm2-{user} -n 30 --no-pager)"


@component("endpoints")
def test_its_unit_has_not_failed(host: Host, pm2: Pm2) -> None:
    failed = host.run("systemctl is-failed %s", f"pm2-{pm2.user}").stdout.strip() == "failed"
    needs(not failed or not _gone(host, pm2), "its program is not there")
    if failed:
        why = f"pm2-{pm2.user}.service has failed: what runs was started by hand, and may not start at boot"
        # what the unit starts is pm2's saved list, which may lack what runs
        raise Unfit(why, f"{{pm2}} save && {BY_UNIT}" if pm2.workers else BY_UNIT)


def _gone(host: Host, pm2: Pm2) -> list[str]:
    """What the unit runs and is not there."""
    shown = host.run("systemctl show -p ExecStart %s", f"pm2-{pm2.user}").stdout
    return [path for path in re.findall(r"path=(\S+)", shown) if not host.file(path).exists]


# Units of NAME that listen on PORT, are disabled, and that no other unit wants.
WAITS = """for unit in $(systemctl list-units --plain --no-legend --state=active 'NAME*.service' | cut -d' ' -f1); do
  wants=$(systemctl show -p WantedBy -p RequiredBy --value $unit)
  [ "$(systemctl is-enabled $unit)" = disabled ] && [ -z "$wants" ] &&
    ss -Hltnp 'sport = :PORT' | grep -q "pid=$(systemctl show -p MainPID --value $unit)," && echo $unit
done"""


@component("endpoints")
def test_what_it_needs_starts_at_boot(host: Host, target: Target, surroundings: dict[str, Any]) -> None:
    """redis and PostgreSQL, where they are the host's own; Debian starts a cluster that postgresql.service wants."""
    for name, port in surroundings["here"].items():
        if not port or (name == "postgresql" and target.psql == "psql"):
            continue
        for unit in host.run(WAITS.replace("NAME", name).replace("PORT", str(port))).stdout.split():
            start = re.sub(r"postgresql@([^-]+)-(.+)\.service", r"/etc/postgresql/\1/\2/start.conf", unit)
            by_hand = f"sed -i s/^manual/auto/ {start}; systemctl daemon-reload"
            remedy = f"systemctl enable {unit}" if start == unit else by_hand
            raise Unfit(f"{unit} runs, but does not start at boot: after a reboot the API is without it", remedy)


USES = """cd "$1" || { echo .; exit; }
[ ! -e .env ] || [ -r .env ] || echo .env
[ ! -e baileys_sessions ] || [ -z "$(find -H baileys_sessions -name lost+found -prune -o \\
  \\( -type d -o -type f \\) ! -writable -print -quit)" ] || echo baileys_sessions"""


@component("endpoints")
def test_its_user_can_use_its_files(host: Host, pm2: Pm2, settings: Settings) -> None:
    """All else here is read as root, whom only a disk that is read-only refuses. Logs may be elsewhere."""
    app = settings.app_dir
    if host.run("[ -d %s ] && ! [ -w %s ]", app, app).succeeded:
        raise Unfit(f"the disk of {app} is read-only: no log, no WhatsApp session is saved", READ_ONLY)
    denied = host.run("runuser -u %s -- sh -c %s sh %s 2>/dev/null", pm2.user, USES, app).stdout.split()
    if denied == ["."]:
        raise Unfit(f"pm2's user {pm2.user} cannot enter {app}", f"see which folder keeps it out: namei -l {app}")
    if denied:
        verb = "read" if denied[0] == ".env" else "write to all of"
        remedy = f"chown -R {pm2.user} {' '.join(f'{app}/{each}' for each in denied)}; {{pm2}} restart {{app}}"
        raise Unfit(f"pm2's user {pm2.user} cannot {verb} {app}/{denied[0]}, which the API needs", remedy)


@component("endpoints", STARTUP)
def test_boot_starts_the_same_pm2(host: Host, pm2: Pm2) -> None:
    shown = host.run("systemctl show -p Environment %s", f"pm2-{pm2.user}").stdout
    home = dict(each.split("=", 1) for each in shown.split() if "=" in each).get("PM2_HOME", pm2.home)
    assert home == pm2.home, f"at boot pm2 reads its list in {home}; the one that runs the API saves it in {pm2.home}"


@component("endpoints", STARTUP)
def test_boot_finds_its_program(host: Host, pm2: Pm2) -> None:
    gone = _gone(host, pm2)
    assert not gone, f"pm2 cannot start at boot: pm2-{pm2.user}.service runs {gone[0]}, which is not there"


@component("endpoints", "{pm2} save")
def test_is_in_pm2s_saved_list(pm2: Pm2, settings: Settings) -> None:
    needs(pm2.workers, "pm2 does not run the API")
    assert pm2.saved, f"{settings.api_app} is not in pm2's saved list: it will not start after a reboot"


@component("endpoints", "{pm2} save")
def test_is_saved_as_running(pm2: Pm2, settings: Settings) -> None:
    needs(pm2.workers, "pm2 does not run the API")
    stopped = [each["status"] for each in pm2.saved if each["status"] == "stopped"]
    assert not stopped, f"pm2's saved list has {settings.api_app} as stopped: it will not start after a reboot"


@component("endpoints", "{pm2} save")
def test_is_saved_as_it_runs(pm2: Pm2) -> None:
    """Moved, or freed of a value that overrides .env, and not saved since: the next boot brings the old one back."""
    needs(pm2.workers, "pm2 does not run the API")
    folders, running = {each.folder for each in pm2.workers}, {key for each in pm2.workers for key in each.shadowed}
    for each in pm2.saved:
        assert each["folder"] in folders, f"after a reboot pm2 would run it in {each['folder']}: its list is older"
        old = sorted({*each["shadowed"]} - running)
        assert not old, f"after a reboot pm2's own environment would override {', '.join(old)} of .env"


@component("endpoints", ANEW)
def test_is_saved_once(pm2: Pm2, settings: Settings) -> None:
    """In cluster mode each process has an entry."""
    forks = [each for each in pm2.saved if each["exec_mode"] != "cluster_mode"]
    assert len(forks) < 2, (
        f"pm2's saved list has {settings.api_app} {len(forks)} times: each takes the port from the others"
    )


@component("endpoints", "close it in the firewall: ufw deny {port}/tcp (or the provider's own)")
def test_port_is_closed_to_the_world(outside: Outside, settings: Settings, seen: Seen) -> None:
    port = settings.api_port
    if outside.port == "not tried":
        seen(f"whether port {port} is closed to the world cannot be seen from here")
        return
    assert outside.port == "closed", f"port {port} is open to the world: it answers from here, without nginx and TLS"


@component("endpoints", "du -xh / | sort -h | tail -20; journalctl --vacuum-size=200M; {pm2} flush")
@pytest.mark.parametrize("what", ["used", "inodes"])
def test_disk_has_room(host: Host, settings: Settings, what: str) -> None:
    option = "-P" if what == "used" else "-Pi"
    places = f"{settings.app_dir} {settings.app_dir}/logs /var/log /var/lib/postgresql"
    lines = host.run(f"df {option} {places} 2>/dev/null").stdout.splitlines()[1:]
    used = {line.split(None, 5)[5]: line.split()[4].rstrip("%") for line in lines}
    full = [f"{place} is at {percent}%" for place, percent in used.items() if percent != "-" and int(percent) >= FULL]
    assert used and not full, f"the disk is nearly full ({what}): {', '.join(full)}"
