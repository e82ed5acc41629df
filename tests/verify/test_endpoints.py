"""The API: does it answer and stay up, run what is on disk, and start at boot? Has its disk room?"""

from __future__ import annotations

import pytest

from rules import HEALTH_CHECK, ROUTES
from tests.verify.answers import answer, is_landing_page, running_secrets, through_nginx
from tests.verify.plugin import DEPLOY, Seen, component, needs
from tests.verify.target import Reading, Target

ENTRY = "/auth/yclients/redirect"
FIRST = f"mount {ROUTES} before the other router in the application's source, then {{pm2}} restart ai-admin-api"
LOG = "{pm2} logs ai-admin-api --lines 50"
FULL = 95  # percent


@component("endpoints", f"{DEPLOY}; if it does not stay up: {LOG}")
def test_pm2_runs_the_api(probe: Reading) -> None:
    assert probe["pm2.pid"], "pm2 does not run ai-admin-api"


@component("endpoints", "stop the process that holds the port, then {pm2} restart ai-admin-api")
def test_the_port_is_held_by_pm2s_process(probe: Reading, target: Target) -> None:
    """In cluster mode pm2's daemon holds it, and hands the connections to the workers."""
    workers = probe["pm2.pid"].split()
    own = [*workers, probe["pm2.daemon"]] if workers and probe["pm2.cluster"] == "yes" else workers
    holder = probe["port.holder"]
    assert not holder or any(f"pid={pid}," in holder for pid in own), (
        f"port {target.settings.api_port} is held by a process that is not pm2's: a copy of the API started by hand?"
    )


@component("endpoints", "(as {other}) pm2 delete ai-admin-api; pm2 save --force")
def test_no_other_pm2_has_the_api(probe: Reading) -> None:
    other = probe["pm2.other"]
    assert not other, (
        f"a second pm2, of user {other}, has ai-admin-api too: both start it, and one cannot have the port"
    )


@component("endpoints", LOG)
def test_it_does_not_crash(probe: Reading) -> None:
    crashes = int(probe["pm2.crashes"])
    assert crashes < 2, f"the API crashed {crashes} times in the last minute: a crash loop"


@component("endpoints", f"{LOG}; systemctl status redis-server postgresql")
def test_health(probe: Reading, seen: Seen) -> None:
    code, _, _, body = answer(probe, "direct.health")
    assert code != "000", f"nothing answers on the API's port: {body}"
    assert code == "200", f"/health answers {code}: redis or the database is down: {body[:120]}"
    seen("/health 200")


@component("endpoints")
def test_health_check_route(probe: Reading, target: Target) -> None:
    if not target.settings.health_check:
        return  # disabled in the settings
    code = answer(probe, "direct.health_check").code
    needs(code != "000", "the API does not answer")
    assert code != "404", f"there is no route {HEALTH_CHECK}"


@component("endpoints", "remove the older route from the application's source, then {pm2} restart ai-admin-api")
def test_no_older_route_answers(probe: Reading, target: Target) -> None:
    if not target.settings.health_check:
        return
    code, _, _, body = answer(probe, "direct.health_check")
    needs(code not in ("000", "404"), "the route does not answer")
    assert running_secrets(probe) is not None, (
        f"an older route, mounted before ours, answers in its place: {HEALTH_CHECK} {code} {body[:60]}"
    )


@component("endpoints")
def test_health_check_through_nginx(probe: Reading, target: Target, seen: Seen) -> None:
    inside = answer(probe, "direct.health_check")
    if not target.settings.health_check:
        return
    needs(inside.code == "200", "the route itself does not answer")
    found = through_nginx(probe, "site.health_check")
    assert found.code == "200" and found.type == inside.type, (
        f"nginx serves the landing page for {HEALTH_CHECK}"
        if is_landing_page(probe, found)
        else f"{HEALTH_CHECK} answers 200 on the API's port, but {found.code} through nginx"
    )
    seen(f"{HEALTH_CHECK} 200 through nginx")


@component("endpoints")
def test_redirect_wants_a_salon(probe: Reading) -> None:
    """400 without salon_id, or 503 without a partner token. With a salon_id it would write to the database."""
    found = through_nginx(probe, "site.redirect")
    assert not is_landing_page(probe, found), "nginx serves the landing page for /auth/: the location is missing"
    assert found.code in ("400", "503"), f"{ENTRY} without salon_id answers {found.code}, not 400"


@component("endpoints", FIRST)
def test_redirect_is_answered_by_the_marketplace(probe: Reading, target: Target) -> None:
    """Another router may answer 400 too: the body tells. What the right one can say stands in its source."""
    found = through_nginx(probe, "site.redirect")
    needs(found.code in ("400", "503"), f"{ENTRY} does not answer")
    own = [route for route in target.contract.routes if (route.path, route.place.file) == (ENTRY, ROUTES)]
    texts = [" ".join(text.split()) for route in own for text in route.texts if len(text.strip()) > 4]
    needs(bool(texts), f"what {ENTRY} answers cannot be read in {ROUTES}")
    assert any(text in found.body for text in texts), (
        f"another router answers {ENTRY}, and lets no salon in: {found.code} {found.body[:60]}"
    )


@component("endpoints", FIRST)
def test_no_router_stands_before_the_marketplace(target: Target) -> None:
    contract = target.contract
    unread = [each for each in contract.unread if "mounted" in each]
    needs(not unread, f"it cannot be read in the source {', '.join(unread)}")
    shadowed = [f"{other.place} answers {route.path} before {route.place}" for route, other in contract.shadowed()]
    assert not shadowed, "; ".join(shadowed)


@component("endpoints", "fix the route: it must refuse a request without a token that it has signed")
@pytest.mark.parametrize("token", ["without_a_token", "with_an_invalid_token"])
def test_qr_wants_a_token(probe: Reading, token: str) -> None:
    """A valid one is not tried, not even for no salon: the routes make a session for whatever id they are given."""
    code = answer(probe, f"direct.qr_{token}").code
    needs(code != "000", "the API does not answer")
    assert code == "401", f"POST /marketplace/api/qr {token.replace('_', ' ')} answers {code}, not 401"


@component("endpoints")
@pytest.mark.parametrize("kind", ["env", "source", "packages"])
def test_runs_what_is_on_disk(probe: Reading, kind: str) -> None:
    needs(bool(probe["pm2.pid"]), "pm2 does not run the API")
    file = probe[f"pm2.older_than_{kind}"]
    assert not file, f"{file} was changed after the API started: the API still runs the old one"


@component("endpoints", "pm2 startup systemd -u {user} --hp {home}; {pm2} save")
def test_starts_at_boot(probe: Reading) -> None:
    assert probe["boot.pm2"] == "enabled", (
        f"pm2 does not start at boot: pm2-{probe['pm2.user'].split()[0]}.service is {probe['boot.pm2']}"
    )


@component("endpoints", "{pm2} save")
def test_is_in_pm2s_saved_list(probe: Reading) -> None:
    needs(bool(probe["pm2.pid"]), "pm2 does not run the API")
    assert probe["boot.saved"].isdigit() and probe["boot.saved"] != "0", (
        "ai-admin-api is not in pm2's saved list: it will not start after a reboot"
    )


@component("endpoints", "close it in the firewall: ufw deny 3000/tcp (or the provider's own)")
def test_port_is_closed_to_the_world(outside: Reading, target: Target, seen: Seen) -> None:
    if outside["port"] == "not tried":
        seen(f"whether port {target.settings.api_port} is closed to the world cannot be seen from the host itself")
        return
    assert outside["port"] == "closed", (
        f"port {target.settings.api_port} is open to the world: it answers from here, without nginx and TLS"
    )


@component("endpoints", "du -xh / | sort -h | tail -20; journalctl --vacuum-size=200M; {pm2} flush")
@pytest.mark.parametrize("what", ["used", "inodes"])
def test_disk_has_room(probe: Reading, what: str) -> None:
    fields = probe[f"disk.{what}"].split()
    pairs = zip(fields[::2], fields[1::2], strict=True)
    full = [f"{place} is at {used}" for used, place in pairs if _percent(used) >= FULL]
    assert not full, f"the disk is nearly full ({what}): {', '.join(full)}"


def _percent(used: str) -> int:
    return int(used.rstrip("%")) if used != "-" else 0  # a file system without inodes
