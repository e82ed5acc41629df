"""The checks. Each belongs to one of the requirements' ten components and says what to do when it fails.

They read the host by other means than the deploy did, and import nothing of facts/ or operations/.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.verify.conftest import DEPLOY, Pending, component
from tests.verify.target import Target

Probe = dict[str, str]
Seen = Callable[[str], None]

LOG = "pm2 logs ai-admin-api --lines 50"
ENGINE = '0{"sid":'

# --- endpoints


@component("endpoints", f"{LOG}; is redis up? is the database?")
def test_health_answers(probe: Probe, seen: Seen) -> None:
    body, _, code = probe["http.health"].rpartition(" ")
    assert code == "200", f"/health answers {code}: {body[:120] or 'nothing'}"
    status = json.loads(body)["status"]
    seen(f"/health 200, status {status}")


@component("endpoints")
def test_health_check_endpoint_answers_through_nginx(probe: Probe, target: Target, seen: Seen) -> None:
    if not target.settings.health_check:
        seen("the health check is switched off (health_check = False)")
        return
    body, _, code = probe["site.health_check"].rpartition(" ")
    assert code == "200" and body.startswith("{"), f"/marketplace/health-check answers {code}: {body[:60]}"
    assert json.loads(body)["status"] == "ok", body[:100]
    seen("/marketplace/health-check 200 through nginx")


@component("endpoints")
def test_qr_endpoint_asks_for_a_token(probe: Probe) -> None:
    assert probe["http.qr_without_token"] == "401", (
        f"POST /marketplace/api/qr answers {probe['http.qr_without_token']}, not 401"
    )


@component("endpoints", f"{LOG}, then {DEPLOY}")
def test_pm2_runs_the_api(probe: Probe) -> None:
    assert "pm2.pid" in probe, "pm2 runs no ai-admin-api"
    assert probe["pm2.listens"] != "0", "another process than pm2's holds the port"
    assert int(probe["pm2.age"]) >= 3, f"the API was started {probe['pm2.age']} s ago: a crash loop?"


@component("endpoints")
def test_api_runs_what_is_on_disk(probe: Probe) -> None:
    assert not probe.get("pm2.newer_file"), f"the API is older than {probe.get('pm2.newer_file')}"


@component("endpoints", "pm2 startup && pm2 save")
def test_pm2_starts_at_boot(target: Target) -> None:
    assert target.host.service("pm2-root").is_enabled, "pm2 is not started at boot"


# --- TLS, page


@component("tls", "certbot renew && systemctl reload nginx")
def test_certificate_is_valid_for_the_domain(probe: Probe, target: Target, seen: Seen) -> None:
    assert "does match" in probe["tls.host"], (
        f"the certificate is not for {target.settings.domain}: {probe['tls.host']}"
    )
    days = int(probe["tls.days"])
    assert days >= 14, f"the certificate ends in {days} days"
    seen(f"valid for {days} days")


@component("tls", "restore the redirect from port 80 in the site")
def test_http_redirects_to_https(probe: Probe, target: Target) -> None:
    code, _, url = probe["site.redirect"].partition(" ")
    assert code in ("301", "308") and url.startswith(f"https://{target.settings.domain}"), (
        f"port 80 answers {code} {url}"
    )


@component("html")
def test_onboarding_page(probe: Probe, seen: Seen) -> None:
    assert probe["site.onboarding_bare"] == "400", (
        f"without a token it answers {probe['site.onboarding_bare']}, not 400: is it the landing page?"
    )
    assert probe["site.onboarding"].startswith("200 text/html"), f"with a token it answers {probe['site.onboarding']}"
    seen("/marketplace/onboarding 200 text/html")


# --- WebSocket


@component("websocket", LOG)
def test_engine_handshake(probe: Probe, seen: Seen) -> None:
    assert probe["socket.direct"].startswith(ENGINE), (
        f"port 3000 answers a handshake with {probe['socket.direct'][:60]!r}"
    )
    assert probe["socket.direct_upgrade"] == "101", f"an upgrade is answered {probe['socket.direct_upgrade']}"
    seen("handshake and 101 on the API's port")


@component("websocket")
def test_socket_io_is_installed(probe: Probe) -> None:
    assert probe["npm.socket.io"], "socket.io is not in node_modules: the next restart takes the API down"


@component("nginx")
def test_handshake_through_nginx(probe: Probe, seen: Seen) -> None:
    body = probe["site.socket"]
    assert body.startswith(ENGINE), (
        "nginx serves the landing page for /socket.io/: the location is missing"
        if body.lstrip().startswith("<")
        else f"/socket.io/ through nginx answers {body[:60]!r}"
    )
    seen("handshake and 101 through TLS")


@component("nginx")
def test_upgrade_through_nginx(probe: Probe) -> None:
    assert probe["socket.site_upgrade"] == "101", (
        f"an upgrade through nginx is answered {probe['socket.site_upgrade']}, not 101"
    )


@component("nginx", "nginx -t, mend what it says, then " + DEPLOY)
def test_nginx_accepts_its_configuration(probe: Probe, target: Target) -> None:
    assert "successful" in probe["nginx.test"], probe["nginx.test"]
    assert target.host.service("nginx").is_running, "nginx does not run"


@component("nginx")
def test_enabled_site_is_a_symlink(probe: Probe) -> None:
    assert probe["nginx.enabled"] == "symbolic link", (
        f"sites-enabled holds a {probe['nginx.enabled']}: edits of sites-available change nothing"
    )


# --- secrets


def _secret(probe: Probe, key: str, name: str, pending: bool) -> None:
    kind = probe[f"env.{key}"].split()[0]
    if pending and kind in ("absent", "empty", "placeholder"):
        raise Pending(f"{key} is {kind} in .env")
    assert kind == "set", f"{key} is {kind} in .env"
    assert key not in probe.get("pm2.shadowed", "").split(), f"pm2's own record hides {key} of .env"
    body = probe["http.health_check"].rpartition(" ")[0]
    if body.startswith("{"):
        environment: dict[str, Any] = json.loads(body)["environment"]
        assert environment[name], f"{key} is in .env, but the running API does not have it"


WAIT = "put it into your .env when YClients has sent it, then " + DEPLOY


@component("partner_token", WAIT)
def test_partner_token(probe: Probe, seen: Seen) -> None:
    _secret(probe, "YCLIENTS_PARTNER_TOKEN", "partner_token", pending=True)
    seen("set, and the running API has it")


@component("app_id", WAIT)
def test_application_id(probe: Probe, seen: Seen) -> None:
    _secret(probe, "YCLIENTS_APP_ID", "app_id", pending=True)
    seen("set, and the running API has it")


@component("jwt_secret")
def test_jwt_secret(probe: Probe, seen: Seen) -> None:
    _secret(probe, "JWT_SECRET", "jwt_secret", pending=False)
    length = int(probe["env.JWT_SECRET"].partition(" ")[2])
    assert length >= 32, f"JWT_SECRET has {length} characters; 32 or more cannot be guessed"
    seen(f"set, {length} characters, and the running API has it")


@component("jwt_secret")
def test_jsonwebtoken_is_installed(probe: Probe) -> None:
    assert probe["npm.jsonwebtoken"], "jsonwebtoken is not in node_modules"


@component("jwt_secret", "chmod 600 .env in the application's folder")
def test_dotenv_is_private(target: Target) -> None:
    file = target.host.file(f"{target.settings.app_dir}/.env")
    assert file.mode & 0o077 == 0, f".env can be read by others: mode {file.mode:o}"


# --- database, Baileys


@component("database", f'{DEPLOY} ("Column does not exist" is this)')
def test_marketplace_columns(probe: Probe, seen: Seen) -> None:
    assert probe["database.columns"] == "5", f"of five columns there are: {probe['database.columns'][:120]}"
    seen("companies has the five columns")


@component("baileys", f"{DEPLOY} (\"Cannot read property 'getQR' of undefined\" is this)")
def test_session_pool_methods(probe: Probe, seen: Seen) -> None:
    words = probe["pool.methods"]
    assert words.startswith("POOL "), f"session-pool.js does not load: {words[:150] or 'no answer'}"
    wrong = [word for word in words.split() if word.endswith((":missing", ":recursive"))]
    assert not wrong, f"the session pool: {', '.join(wrong)}"
    assert "getQR() returns the code" in words, words.removeprefix("POOL ")
    seen("the four methods are there; getQR returns the code")


@component("baileys")
def test_baileys_is_installed(probe: Probe) -> None:
    version = probe["npm.@whiskeysockets/baileys"]
    assert version, "@whiskeysockets/baileys is not in node_modules"
    assert not version.startswith("6."), (
        f"@whiskeysockets/baileys is {version}; the application wants 7 (npm's `latest` is older)"
    )


@component("baileys", "install Node.js 20 or newer")
def test_node_is_new_enough(probe: Probe) -> None:
    assert int(probe["node.version"].lstrip("v").split(".")[0]) >= 20, (
        f"node is {probe['node.version']}; baileys wants 20"
    )
