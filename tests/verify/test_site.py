"""nginx and TLS: DNS, the certificate, the page and WebSocket, seen from the host itself and from outside."""

from __future__ import annotations

import pytest

from tests.verify.answers import ENGINE, answer, is_landing_page, through_nginx
from tests.verify.plugin import DEPLOY, Seen, component, needs
from tests.verify.target import Reading, Target

RENEW = "certbot renew && systemctl reload nginx"

# --- from outside


@component("tls", "set the domain's A (and AAAA) record to the host's address, at your DNS provider")
def test_dns_points_to_the_host(outside: Reading, probe: Reading, target: Target) -> None:
    own = {*probe["host.addresses"].split(), *outside["ssh_address"].split()}
    found = outside["addresses"].split()
    assert found, f"DNS has no address for {target.settings.domain}"
    foreign = [address for address in found if address not in own]
    assert not foreign, f"DNS points {target.settings.domain} to {', '.join(foreign)}, which is not this host"


def _outside(outside: Reading, name: str) -> tuple[str, str, str]:
    needs(name in outside, "DNS has no address for the domain")
    code, kind, location = [*outside[name].split(" ", 2), "", ""][:3]
    return code, kind, location


@component("tls", f"{RENEW}; if it is for another name: certbot --nginx -d ai-admin.app")
def test_certificate_is_trusted_from_outside(outside: Reading, probe: Reading) -> None:
    needs(probe["nginx.active"] == "active", "nginx does not run: see Nginx WebSocket")
    code = _outside(outside, "page")[0]
    assert code != "000", f"from outside, https fails: {outside['page'].removeprefix('000 ')}"


@component("tls", "open ports 80 and 443 in the firewall; check the nginx site for allow and deny")
def test_page_answers_the_same_from_outside(outside: Reading, probe: Reading) -> None:
    inside = through_nginx(probe, "site.onboarding_bare")
    code, kind, _ = _outside(outside, "page")
    needs(code != "000", "https fails from outside")
    assert (code, kind) == (inside.code, inside.type), (
        f"the same page answers {inside.code} on the host and {code} from outside"
    )


@component("tls", "restore `return 301 https://$host$request_uri;` in the site's server block for port 80")
def test_http_redirects_to_https(outside: Reading, probe: Reading, target: Target) -> None:
    needs(probe["nginx.active"] == "active", "nginx does not run: see Nginx WebSocket")
    code, _, location = _outside(outside, "redirect")
    needs(code != "000", "port 80 does not answer from outside")
    assert code in ("301", "308") and location.startswith(f"https://{target.settings.domain}/"), (
        f"http:// answers {code} {location} instead of redirecting to https"
    )


# --- the certificate that is served


@component("tls", RENEW)
def test_certificate_lasts(probe: Reading, seen: Seen) -> None:
    days = int(probe["tls.days"])
    assert days >= 14, f"the certificate expires in {days} days" if days >= 0 else "the certificate has expired"
    seen(f"valid for {days} days, trusted from outside, http redirects to https")


@component("tls", "certbot --nginx -d ai-admin.app")
def test_certificate_is_for_the_domain(probe: Reading) -> None:
    assert probe["tls.name"] == "matches", f"the certificate does not match the domain: {probe['tls.name']}"


@component("tls", "nginx -t && systemctl reload nginx")
def test_certificate_on_disk_is_served(probe: Reading) -> None:
    assert probe["tls.on_disk"] == "served", "nginx does not serve the certificate on disk: renewed but not loaded"


# --- the page


@component("html")
def test_onboarding_wants_a_token(probe: Reading) -> None:
    found = through_nginx(probe, "site.onboarding_bare")
    assert not is_landing_page(probe, found), "nginx serves the landing page for /marketplace/onboarding"
    assert found.code == "400", f"/marketplace/onboarding without a token answers {found.code}, not 400"


@component("html", "check that public/marketplace/onboarding.html exists; if not, deploy the application again")
def test_onboarding_page(probe: Reading, seen: Seen) -> None:
    found = through_nginx(probe, "site.onboarding")
    assert not is_landing_page(probe, found), "nginx serves the landing page for /marketplace/onboarding?token=…"
    assert (found.code, found.type) == ("200", "text/html"), (
        f"/marketplace/onboarding?token=… answers {found.code} {found.type}, not 200 text/html"
    )
    seen("/marketplace/onboarding 200 text/html, 400 without a token")


# --- WebSocket: the server, then through nginx


@component("websocket", f"{{pm2}} logs ai-admin-api --lines 50; then {DEPLOY}")
@pytest.mark.parametrize("way", ["polling", "upgrade"])
def test_server(probe: Reading, seen: Seen, way: str) -> None:
    if way == "polling":
        found = answer(probe, "direct.socket")
        assert found.body.startswith(ENGINE), (
            f"a socket.io handshake on the API's port answers {found.code} {found.body[:60]}"
        )
    else:
        code = answer(probe, "direct.upgrade").code
        assert code == "101", f"an upgrade to WebSocket on the API's port answers {code}, not 101"
        seen("handshake and upgrade (101) work on the API's port")


@component("nginx", "nginx -t; systemctl enable --now nginx")
def test_nginx_runs(probe: Reading) -> None:
    assert probe["nginx.active"] == "active", f"nginx does not run: {probe['nginx.active']}"


@component("nginx", "systemctl enable nginx")
def test_nginx_starts_at_boot(probe: Reading) -> None:
    assert probe["boot.nginx"] == "enabled", f"nginx does not start at boot: {probe['boot.nginx']}"


@component("nginx", f"fix the configuration until `nginx -t` passes, then {DEPLOY}")
def test_nginx_accepts_its_configuration(probe: Reading) -> None:
    assert probe["nginx.test"] == "successful", f"nginx -t fails, so a reload would be refused: {probe['nginx.test']}"


@component("nginx", "move the second file out of /etc/nginx (sites-enabled, conf.d), then reload nginx")
def test_no_site_hides_another(probe: Reading) -> None:
    assert not probe["nginx.conflict"], f"two sites have the same name, and one is ignored: {probe['nginx.conflict']}"


@component("nginx")
def test_enabled_site_is_the_one_to_edit(probe: Reading) -> None:
    assert probe["nginx.enabled"] != "copy", (
        "sites-enabled holds a copy of the site: edits in sites-available have no effect"
    )


@component("nginx")
def test_nginx_runs_what_is_on_disk(probe: Reading) -> None:
    needs(probe["nginx.test"] == "successful", "nginx refuses its configuration")
    file = probe["nginx.newer"]
    assert not file, f"nginx does not run the configuration on disk: {file} was changed after nginx loaded it"


@component("nginx")
def test_handshake_through_nginx(probe: Reading) -> None:
    _server_answers(probe)
    found = through_nginx(probe, "site.socket")
    assert found.code != "200" or not found.body.lstrip().startswith("<"), (
        "/socket.io/ answers with the landing page: nginx does not proxy it, the location is missing"
    )
    assert found.body.startswith(ENGINE), f"/socket.io/ through nginx answers {found.code} {found.body[:60]}"


def _server_answers(probe: Reading) -> None:
    works = answer(probe, "direct.socket").body.startswith(ENGINE)
    needs(works, "socket.io itself does not answer: see WebSocket server")


@component("nginx", f'{DEPLOY} (this is the cause of "WebSocket connection failed" in the browser)')
def test_upgrade_through_nginx(probe: Reading) -> None:
    _server_answers(probe)
    needs(answer(probe, "direct.upgrade").code == "101", "the API itself refuses the upgrade: see WebSocket server")
    found = through_nginx(probe, "site.upgrade")
    assert found.code == "101", f"an upgrade to WebSocket fails in nginx: it answers {found.code}, not 101"


@component("nginx", f'{DEPLOY} (this is the cause of "WebSocket connection failed" in the browser)')
def test_socket_io_client_connects(probe: Reading, seen: Seen) -> None:
    """The real client, through nginx and TLS, over WebSocket only."""
    _server_answers(probe)
    needs(answer(probe, "direct.upgrade").code == "101", "the API itself refuses the upgrade: see WebSocket server")
    through_nginx(probe, "site.socket")
    assert probe["site.client"] == "connected by websocket", f"the socket.io client fails: {probe['site.client']}"
    seen("the socket.io client connects over WebSocket through TLS")
