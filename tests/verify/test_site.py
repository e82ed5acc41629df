"""nginx and TLS: DNS, the certificate, the page and WebSocket, seen from the host itself and from outside."""

from __future__ import annotations

import re
import shlex
import ssl
from itertools import count
from pathlib import PurePosixPath

import pytest
from testinfra.host import Host

from settings import Settings
from tests.verify.checks import ENGINE, Page, forbidden, is_landing_page, lasting, through_nginx
from tests.verify.outside import BROWSER, PATH, Outside, ask, ask_page
from tests.verify.outside import Seen as Answered
from tests.verify.plugin import DEPLOY, PASS_ON, Seen, Unfit, component, needs
from tests.verify.target import FROM_OUTSIDE, Answers, NotChecked, Pm2, Target

LIVE = "/etc/letsencrypt/live"
RENEW = "certbot renew && systemctl reload nginx"
OBTAIN = "certbot --nginx -n -d {domain}"  # which refuses to write where somebody else's folder has that name
# bootstrap.py has put a certificate of its own where certbot would have its: certbot refuses to write there
BOOTSTRAP = "on your laptop, once DNS points here: pyinfra inventory.py bootstrap.py"
RELOAD = "nginx -t && systemctl reload nginx"
FAILED = f'{DEPLOY} (this is the cause of "WebSocket connection failed" in the browser)'
BY_HAND = "renew the certificate where it comes from, then reload nginx"
# What renews: certbot's timer, or somebody's cron job (Debian's own of certbot 2.11 does nothing under systemd).
RENEWS = (
    "systemctl is-active certbot.timer snap.certbot.renew.timer || "
    "grep -rls certbot /etc/crontab /etc/cron.* /var/spool/cron | grep -v '^/etc/cron.d/certbot$'"
)
ANEW = "{pm2} delete {app}; cd {app_dir} && {pm2} start ecosystem.config.js --only {app} && {pm2} save"
REACH = "open ports 80 and 443 in the firewall; check the nginx site for allow and deny"

# --- from outside


@component("tls", "set the domain's A (and AAAA) record to the host's address, at your DNS provider")
def test_dns_points_to_the_host(host: Host, outside: Outside, settings: Settings) -> None:
    assert outside.addresses, f"DNS has no address for {settings.domain}"
    foreign = _foreign(host, outside)
    assert not foreign, f"DNS points {settings.domain} to {', '.join(foreign)}, which is not this host"


def _foreign(host: Host, outside: Outside) -> list[str]:
    own = {*_own_addresses(host), *outside.ssh_addresses}
    foreign = [address for address in outside.addresses if address not in own]
    return [address for address in foreign if not _arrives(host, outside.marks[address])] if foreign else []


def _own_addresses(host: Host) -> set[str]:
    return {*re.findall(r"inet6? ([^/ ]+)", host.check_output("ip -o address"))}


def _unseen(host: Host, outside: Outside) -> list[str]:
    """Addresses of the domain that this machine has no way to, and the host has: it can ask itself there."""
    own = _own_addresses(host)
    return [address for address, page in outside.page.items() if page.failed == "not from here" and address in own]


def _arrives(host: Host, mark: str) -> bool:
    """What was asked at that address came to this host's nginx, through a CDN or an address translation."""
    named = r"s/^[^#]*access_log[ \t]*\(\/[^ ;]*\).*/\1/p"
    logs = f"$(nginx -T 2>/dev/null | sed -n '{named}' | sort -u) /var/log/nginx/access.log"
    return bool(host.run(f"tail -qc 300000 {logs} 2>/dev/null | grep -qF {mark}").succeeded)


def _from_outside(host: Host, outside: Outside) -> None:
    needs(host.service("nginx").is_running, "nginx does not run: see Nginx WebSocket")
    needs(outside.addresses and not _foreign(host, outside), "DNS does not point to this host")


@component("tls")
def test_certificate_is_trusted_from_outside(host: Host, target: Target, outside: Outside, settings: Settings) -> None:
    _from_outside(host, outside)
    for address, page in outside.page.items():
        if page.failed == "certificate":
            why, remedy = _distrusted(host, target, settings, page.why)
            raise Unfit(f"from outside, https fails: {why} ({address})", remedy)


def _distrusted(host: Host, target: Target, settings: Settings, why: str) -> tuple[str, str]:
    """In more words where we know them, and what to do."""
    served = _certificate(host, target.site_address, settings)
    own = _own_file(host, target, settings)
    if own and _names_it(host, own) and served["sha256"] != _on_disk(host, settings)[own]:
        return why, RELOAD
    if own and "expired" in why:
        return why, RENEW
    if "local issuer" in why and served["chain"] == "1" and own:
        file = f"`ssl_certificate {own};`"
        return f"nginx serves the certificate without its intermediate: {why}", f"write {file} in the site; {RELOAD}"
    return why, _obtain(host, settings) if own else BY_HAND


def _obtain(host: Host, settings: Settings) -> str:
    is_known = host.file(_renewal(f"{LIVE}/{settings.domain}/fullchain.pem")).exists
    if not is_known and host.file("/var/lib/ai-admin-bootstrap").exists:
        return BOOTSTRAP
    taken = host.run(f"cd {LIVE} && ls -d {settings.domain}*").stdout.split()
    if is_known or settings.domain not in taken:
        return OBTAIN
    free = next(name for n in count(1) if (name := f"{settings.domain}-{n:04}") not in taken)
    return OBTAIN.replace(" -d ", f" --cert-name {free} -d ")


@component("tls", REACH)
def test_site_is_reached_from_outside(
    host: Host, outside: Outside, answers: dict[str, Answers], settings: Settings
) -> None:
    _from_outside(host, outside)
    for address in _unseen(host, outside):
        if not _served(host, address, settings):
            raise Unfit(f"https does not answer at {address}, which the domain's AAAA record names", LISTEN)
    for address, page in outside.page.items():
        needs(page.failed != "timeout" or answers["health"].direct.status, "the API does not answer: see Endpoints")
        if not _reached(page):
            why = f"from outside, https does not answer at {address}: {page.why}"
            others = any(_reached(each) for other, each in outside.page.items() if (":" in other) != (":" in address))
            raise Unfit(why, LISTEN if ":" in address and others else REACH)


LISTEN = "have nginx `listen [::]:443 ssl;` and the firewall let it through, or remove the domain's AAAA record"


def _reached(page: Answered) -> bool:
    return page.failed in ("", "certificate", "not from here")


@component("tls", REACH)
def test_port_80_answers(host: Host, outside: Outside) -> None:
    """Where https does: what else fails has a check of its own."""
    _from_outside(host, outside)
    for address, page in outside.redirect.items():
        needs(page.failed in ("", "not from here") or _reached(outside.page[address]), "https does not answer either")
        assert page.failed in ("", "not from here"), (
            f"from outside, port 80 does not answer at {address}: {page.why}; certbot needs it to renew the certificate"
        )


@component("tls", REACH)
def test_page_answers_the_same_from_outside(
    host: Host, outside: Outside, answers: dict[str, Answers], settings: Settings
) -> None:
    _from_outside(host, outside)
    inside = through_nginx(host, answers, "onboarding_bare")
    answered = {address: found for address, found in outside.page.items() if found.status}
    needs(answered, "https fails from outside")
    for address, first in answered.items():
        was_held = first.status == 502 != inside.status  # it was asked while nginx still considered the API down
        found = ask_page(settings, address) if was_held else first
        assert (found.status, found.type) == (inside.status, inside.type), (
            f"the same page answers {inside.status} on the host and {found.status} from outside"
        )


ALLOW = f"remove `allow` and `deny` from its location in nginx, and let what stands before nginx pass it; {RELOAD}"


@component("nginx", ALLOW)
@pytest.mark.parametrize("question", FROM_OUTSIDE)
def test_paths_answer_the_same_from_outside(
    host: Host, outside: Outside, answers: dict[str, Answers], settings: Settings, question: str
) -> None:
    """A location may be for the host itself alone."""
    _from_outside(host, outside)
    inside = through_nginx(host, answers, question)
    path = FROM_OUTSIDE[question]["path"].partition("?")[0]
    answered = {address: asked[question] for address, asked in outside.paths.items() if outside.page[address].status}
    needs(answered, "https fails from outside")
    for address, first in answered.items():
        same = (first.status, first.type) == (inside.status, inside.type)
        found = first if same else ask(settings, address, FROM_OUTSIDE[question])  # limited, or while nginx held it
        what = "an upgrade to WebSocket" if question == "upgrade" else path
        assert (found.status, found.type) == (inside.status, inside.type), (
            f"{what} answers {inside.status} on the host and {found.status or found.why} from outside"
        )


@component("tls", "restore `return 301 https://$host$request_uri;` in the site's server block for port 80")
def test_http_redirects_to_https(host: Host, outside: Outside, settings: Settings) -> None:
    _from_outside(host, outside)
    answered = [page for page in outside.redirect.values() if page.status]
    needs(answered, "port 80 does not answer from outside")
    wanted = f"https://{settings.domain}/"
    for page in answered:
        assert page.status in (301, 302, 307, 308) and page.location.startswith(wanted), (
            f"http:// answers {page.status} {page.location} instead of redirecting to https"
        )
        assert page.location == wanted + PATH.lstrip("/"), f"the redirect to https loses the path: {page.location}"


# --- the certificate that is served


def _certificate(host: Host, address: str, settings: Settings) -> dict[str, str]:
    """openssl's words about what nginx serves; `chain`: how many certificates that is."""
    place = f"[{address}]" if ":" in address else address
    shown = f"openssl s_client -connect {place}:443 -servername {settings.domain} -showcerts </dev/null 2>/dev/null"
    asked = f"openssl x509 -noout -dates -fingerprint -sha256 -checkhost {settings.domain} 2>&1"
    done = host.run(f'all=$({shown}); echo "$all" | {asked}; echo chain=$(echo "$all" | grep -c BEGIN)')
    needs("notAfter" in done.stdout, "nginx serves no certificate")
    found = dict(re.findall(r"^(\w+)[^=\n]*=(.*)", done.stdout, re.MULTILINE))
    return {**found, "matches": "yes" if "does match" in done.stdout else "no"}


def _own_file(host: Host, target: Target, settings: Settings) -> str:
    """certbot's, for the domain: that which is served, else one that nginx names, else that of the domain's own name.
    Empty where there is none, and where what is served comes from elsewhere and is trusted."""
    digests = _on_disk(host, settings)
    served = _served(host, target.site_address, settings)
    found = [file for file in digests if digests[file] == served] or [file for file in digests if _names_it(host, file)]
    if found:
        return found[0]
    pages = target.outside.page.values()
    is_trusted = any(page.status for page in pages) and not any(page.failed == "certificate" for page in pages)
    own = f"{LIVE}/{settings.domain}/fullchain.pem"
    return own if own in digests and not is_trusted else ""


def _served(host: Host, address: str, settings: Settings) -> str:
    """The digest of what nginx serves; empty where it serves nothing."""
    try:
        return _certificate(host, address, settings)["sha256"]
    except NotChecked:
        return ""


# Of each that certbot has: file, digest, is it for the domain.
ON_DISK = """for file in {live}/*/fullchain.pem; do
  echo "$file $(openssl x509 -in "$file" -noout -fingerprint -sha256 -checkhost {domain} 2>/dev/null | tr '\\n' ' ')"
done"""


def _on_disk(host: Host, settings: Settings) -> dict[str, str]:
    """By certbot's file for the domain, its digest. certbot adds -0001 to a name where it finds an older one."""
    lines = host.run(ON_DISK.format(live=LIVE, domain=shlex.quote(settings.domain))).stdout.splitlines()
    found = [(line.split()[0], line) for line in lines if "=" in line]
    own = re.compile(rf"{re.escape(f'{LIVE}/{settings.domain}')}(-\d+)?/")
    return {file: line.partition("=")[2].split()[0] for file, line in found if "does match" in line or own.match(file)}


def _renewal(own: str) -> str:
    """The file by which certbot renews it."""
    return f"/etc/letsencrypt/renewal/{PurePosixPath(own).parent.name}.conf"


def _names_it(host: Host, file: str) -> bool:
    """Does nginx's configuration?"""
    return bool(
        host.run(
            "nginx -T 2>/dev/null | grep -E '^[[:space:]]*ssl_certificate[[:space:]]' | grep -F %s", file
        ).succeeded
    )


@component("tls")
def test_certificate_lasts(host: Host, target: Target, settings: Settings, seen: Seen) -> None:
    """certbot renews with a third of the time left (4.0; before, 30 days), or half of less than 10 days: where less is
    left, it has failed several times. Of a year it is left to whoever renews by hand."""
    certificate = _certificate(host, target.site_address, settings)
    begins, ends = (ssl.cert_time_to_seconds(certificate[each]) for each in ("notBefore", "notAfter"))
    days = int((ends - int(host.check_output("date +%s"))) // 86_400)
    lasts = lasting((ends - begins) / 86_400)
    if days < lasts:
        left = f"the certificate expires in {days} days" if days >= 0 else "the certificate has expired"
        own = _own_file(host, target, settings)
        is_old = own and host.run(f"openssl x509 -in %s -noout -checkend {lasts * 86_400}", own).succeeded
        raise Unfit(left, RELOAD if is_old else RENEW if own else BY_HAND)
    told = "; DNS is not asked, but verify_address" if settings.verify_address else ""
    seen(f"valid for {days} days, trusted from outside, http redirects to https{told}")


@component("tls", OBTAIN)
def test_certificate_is_for_the_domain(host: Host, target: Target, outside: Outside, settings: Settings) -> None:
    served = _certificate(host, target.site_address, settings)
    assert served["matches"] == "yes", f"the certificate does not match the domain: it is not for {settings.domain}"
    for address in _unseen(host, outside):
        if _served(host, address, settings) and _certificate(host, address, settings)["matches"] != "yes":
            raise Unfit(f"at {address} another site answers, with a certificate that is not for the domain", LISTEN)


@component("tls")
def test_certificate_on_disk_is_served(host: Host, target: Target, settings: Settings) -> None:
    own = _own_file(host, target, settings)
    if not own or _certificate(host, target.site_address, settings)["sha256"] == _on_disk(host, settings)[own]:
        return
    if not _names_it(host, own):
        raise Unfit("nginx does not serve certbot's certificate: `ssl_certificate` names another file", OBTAIN)
    raise Unfit("nginx does not serve the certificate on disk: renewed but not loaded", RELOAD)


@component("tls", "systemctl enable --now certbot.timer")
def test_something_renews_the_certificate(host: Host, target: Target, settings: Settings) -> None:
    renews = not _own_file(host, target, settings) or host.run(RENEWS).succeeded
    assert renews, "nothing renews the certificate: certbot.timer is not active, and no cron job names certbot"


@component("tls")
def test_certbot_renews_this_certificate(host: Host, target: Target, settings: Settings) -> None:
    own = _own_file(host, target, settings)
    file = _renewal(own)
    if own and not host.file(file).exists:
        raise Unfit(f"`certbot renew` skips the certificate: there is no {file}", _obtain(host, settings))


@component(
    "tls", "systemctl restart certbot.service && systemctl reload nginx (why: journalctl -u certbot -n 30 --no-pager)"
)
def test_the_last_renewal_did_not_fail(host: Host, target: Target, settings: Settings) -> None:
    """Of this certificate: that of a domain which has gone fails each time."""
    failed = host.run("systemctl is-failed certbot.service").stdout.strip() == "failed"
    own = _own_file(host, target, settings) if failed else ""
    others = set(re.findall(r"(\S+/fullchain\.pem) \(failure\)", host.run(LAST_RENEWAL).stdout)) if own else set()
    assert not own or (others and own not in others), "the last renewal failed: certbot.service has failed"


# What certbot (2.11) said in its unit's last run; of each that failed its file. Not by the run's id: of what a process
# says just before it ends, journald (257) loses that, 13 times of 60 on a busy machine.
LAST_RENEWAL = 'journalctl -o cat -u certbot --since="$(systemctl show -p ExecMainStartTimestamp --value certbot)"'


# --- the page


@component("html", otherwise=PASS_ON)
def test_onboarding_wants_a_token(host: Host, answers: dict[str, Answers]) -> None:
    found = through_nginx(host, answers, "onboarding_bare")
    assert not is_landing_page(found, answers), "nginx serves the landing page for /marketplace/onboarding"
    assert found.status == 400, f"/marketplace/onboarding without a token answers {found.status}, not 400"


@component("html", "check that public/marketplace/onboarding.html exists; if not, deploy the application again")
def test_onboarding_page(host: Host, answers: dict[str, Answers], seen: Seen) -> None:
    found = through_nginx(host, answers, "onboarding")
    assert not is_landing_page(found, answers), "nginx serves the landing page for /marketplace/onboarding?token=…"
    assert (found.status, found.type) == (200, "text/html"), (
        f"/marketplace/onboarding?token=… answers {found.status} {found.type}, not 200 text/html"
    )
    seen("/marketplace/onboarding 200 text/html, 400 without a token")


@component(
    "html", "have nginx pass /marketplace/ to the API as it is; if the file is empty, deploy the application again"
)
def test_onboarding_page_is_the_applications(host: Host, answers: dict[str, Answers]) -> None:
    site, direct = through_nginx(host, answers, "onboarding"), answers["onboarding"].direct
    needs(site.status == direct.status == 200, "the page does not answer")
    needs(not is_landing_page(site, answers), "nginx serves the landing page")
    assert direct.body.strip(), "the page of /marketplace/onboarding?token=… is empty"
    assert site.varies or site.body == direct.body, (
        "/marketplace/onboarding?token=… is not the same page through nginx as on the API"
    )


def _page(host: Host, answers: dict[str, Answers], settings: Settings) -> Page:
    """As nginx serves it. Raises NotChecked."""
    found = through_nginx(host, answers, "onboarding")
    needs(found.status == 200, "the page does not answer")
    return Page(found.body, f"https://{settings.domain}/marketplace/onboarding")


@component(
    "html",
    "remove the Content-Security-Policy, or have it allow that: script-src 'self' 'unsafe-inline' and the page's other"
    " servers; connect-src 'self'; img-src 'self' data:",
)
def test_onboarding_page_may_run_its_scripts(
    host: Host, target: Target, answers: dict[str, Answers], settings: Settings
) -> None:
    page, policy = _page(host, answers, settings), answers["onboarding"].site.policy
    makes_images = any(re.search("data:image|toDataURL", text) for text in (*target.sources.values(), page.html))
    policies = re.split(r",\s*", policy) if policy else []
    refused = forbidden(page, policies, makes_images)
    said = "; ".join([*policies, *page.policies])[:150]
    assert not refused, f"the page's Content-Security-Policy forbids {', '.join(refused)}: {said}"


@component("html", "deploy the application again, with the file below public/; and have nginx pass its path to the API")
def test_onboarding_page_has_its_files(
    host: Host, target: Target, settings: Settings, answers: dict[str, Answers]
) -> None:
    files = _page(host, answers, settings).of_its_site()
    client, listens = answers["/socket.io/ script"].direct, answers["socket"].direct.status == 200
    if listens and "/socket.io/socket.io.js" in files:
        package = f"{settings.app_dir}/node_modules/socket.io/package.json"
        needs(host.file(package).exists, "socket.io is not in node_modules: see WebSocket server")
        assert client.status == 200, (
            f"/socket.io/socket.io.js, which the page loads, answers {client.status or 'nothing'}:"
            " serveClient must not be off"
        )
    paths = [path for path in files if not path.startswith("/socket.io/")]  # which has checks of its own
    found = target.ask({path: {"path": path} for path in paths}) if paths else {}
    for path, both in found.items():
        assert both.site.status == 200 and both.site.type != "text/html", (
            f"{path}, which the page loads, answers {both.site.status} {both.site.type} through nginx"
        )


@component("html", "have the page load that script from where it is, or from its own server, below public/")
def test_onboarding_page_has_its_scripts_from_elsewhere(
    host: Host, target: Target, settings: Settings, answers: dict[str, Answers]
) -> None:
    """As a browser here would ask for them. What cannot be reached from here may be there for others."""
    for address, found in target.elsewhere(_page(host, answers, settings).from_elsewhere()).items():
        wrong = found.why if found.failed == "certificate" else found.status if found.status in (404, 410) else ""
        assert not wrong, f"{address}, which the page loads, fails: {wrong}"


# --- WebSocket: the server, then through nginx


@component("websocket", "in the application's source socket.io must listen at /socket.io/, by every transport")
@pytest.mark.parametrize("way", ["polling", "upgrade"])
def test_server(answers: dict[str, Answers], seen: Seen, way: str) -> None:
    needs(answers["health"].direct.status, "the API does not answer: see Endpoints")
    if way == "polling":
        found = answers["socket"].direct
        assert found.body.startswith(ENGINE), (
            f"a socket.io handshake on the API's port answers {found.status} {found.body[:60]}"
        )
    else:
        status = answers["upgrade"].direct.status
        assert status == 101, f"an upgrade to WebSocket on the API's port answers {status}, not 101"
        seen("handshake and upgrade (101) work on the API's port")


ONE = "in {app_dir}/ecosystem.config.js set `instances: 1` for {app}; then on the host: "


@component("websocket")
def test_server_keeps_its_sessions(answers: dict[str, Answers], pm2: Pm2) -> None:
    """The page begins by polling: each request is one of its own. So is a QR code in the memory of one process."""
    needs(answers["socket"].direct.status == 200, "the handshake does not work")
    found = answers["sessions"].direct
    if found.status != 200:
        several = f", and pm2 runs {len(pm2.workers)} processes" if len(pm2.workers) > 1 else ""
        raise Unfit(
            f"a session of socket.io does not outlast its first request: {found.status} {found.body[:60]}{several}",
            f"{ONE}{ANEW}" if several else "{pm2} logs {app} --lines 50 --nostream",
        )


@component("websocket", "the namespace must be in the application's source: deploy the application again")
def test_server_has_the_namespace(target: Target) -> None:
    """Read in the source: to connect there may start a WhatsApp session."""
    made = [name for text in target.sources.values() for name in re.findall(r"\.of\(\s*([^)\s]*)", text)]
    names = [each[1:-1] for each in made if each[:1] in "'\"`"]
    assert "/marketplace" in names or len(names) < len(made), (
        "the socket.io server has no namespace /marketplace, which the page connects to"
    )


@component("nginx", "nginx -t; systemctl enable --now nginx")
def test_nginx_runs(host: Host) -> None:
    assert host.service("nginx").is_running, "nginx does not run"


@component("nginx", "systemctl enable nginx")
def test_nginx_starts_at_boot(host: Host) -> None:
    assert host.service("nginx").is_enabled, "nginx does not start at boot"


@component("nginx", f"fix the configuration until `nginx -t` passes, then {DEPLOY}")
def test_nginx_accepts_its_configuration(host: Host) -> None:
    done = host.run("nginx -t")
    said = re.findall(r"\[(?:emerg|alert|crit)\] (.*)", done.stderr) or [done.stderr.strip()]
    assert done.succeeded, f"nginx -t fails, so a reload would be refused: {said[0]}"


@component("nginx", "move the second file out of /etc/nginx (sites-enabled, conf.d), then reload nginx")
def test_no_site_hides_another(host: Host, settings: Settings) -> None:
    conflict = re.findall(rf'conflicting server name "\.?{re.escape(settings.domain)}".*', host.run("nginx -t").stderr)
    assert not conflict, f"two sites have the same name, and one is ignored: {conflict[0]}"


@component("nginx")
def test_enabled_site_is_the_one_to_edit(host: Host, settings: Settings) -> None:
    """A copy that serves, in the place of a link to what one would edit."""
    enabled = host.file(f"/etc/nginx/sites-enabled/{settings.nginx_site}")
    copy = enabled.exists and not enabled.is_symlink and _serving(host, settings) == enabled.path
    assert not copy, "sites-enabled holds a copy of the site: edits in sites-available have no effect"


def _serving(host: Host, settings: Settings) -> str:
    """The first file that names the domain and listens to https."""
    name = settings.domain.replace(".", "[.]")
    program = f"""/^# configuration file/ {{ file = $4; sub(/:$/, "", file); https = 0; named = 0 }}
        /^[^#]*listen[^;]*443/ {{ https = 1 }} /^[^#]*server_name[^;]*[ \\t]{name}[ \\t;]/ {{ named = 1 }}
        https && named {{ print file; exit }}"""
    return str(host.run("nginx -T 2>/dev/null | awk %s", program).stdout.strip())


@component("nginx")
def test_nginx_runs_what_is_on_disk(host: Host, target: Target) -> None:
    needs(host.run("nginx -t").succeeded, "nginx refuses its configuration")
    since = target.processes["nginx"]
    needs(since, "nginx does not run: see Nginx WebSocket")
    named = r"s/^# configuration file \(.*\):$/file \1/p; s/^[^#]*include[ \t]*\([^;]*\*[^;]*\);.*/pattern \1/p"
    lines = host.run(f"nginx -T 2>/dev/null | sed -n '{named}'").stdout.splitlines()
    found = [line.partition(" ")[::2] for line in lines]
    files = [name for kind, name in found if kind == "file"]
    # certbot makes and removes a lock in the other folders, twice a day
    folders = {str(PurePosixPath("/etc/nginx", name).parent) for kind, name in found if kind == "pattern"}
    newer = newest(host, [*files, *sorted(folders)], since, "-maxdepth 0")
    assert not newer, f"nginx does not run the configuration on disk: {newer} was changed after nginx loaded it"


def newest(host: Host, paths: list[str], since: float, *which: str) -> str:
    """One of them that was changed after `since`. By a file's inode change time, which, unlike its modification time,
    cannot be set; of a link, also that of what it points to."""
    named = " ".join(map(shlex.quote, paths))
    looks = [f"find -{way} {named} {' '.join(which)} -newerct @{since:.3f} -print -quit" for way in "PL"]
    return str(host.run(f"({'; '.join(looks)}) 2>/dev/null | head -n 1").stdout.strip())


@component("nginx", otherwise=PASS_ON)
def test_handshake_through_nginx(host: Host, answers: dict[str, Answers]) -> None:
    _server_answers(answers)
    found = through_nginx(host, answers, "socket")
    assert found.status != 200 or not found.body.lstrip().startswith("<"), (
        "/socket.io/ answers with the landing page: nginx does not proxy it, the location is missing"
    )
    assert found.body.startswith(ENGINE), f"/socket.io/ through nginx answers {found.status} {found.body[:60]}"


def _server_answers(answers: dict[str, Answers]) -> None:
    works = answers["socket"].direct.body.startswith(ENGINE)
    needs(works, "socket.io itself does not answer: see WebSocket server")


@component("nginx", FAILED, otherwise=PASS_ON)
def test_upgrade_through_nginx(host: Host, answers: dict[str, Answers]) -> None:
    _server_answers(answers)
    needs(answers["upgrade"].direct.status == 101, "the API itself refuses the upgrade: see WebSocket server")
    status = through_nginx(host, answers, "upgrade").status
    assert status == 101, f"an upgrade to WebSocket fails in nginx: it answers {status}, not 101"


@component("nginx", FAILED, otherwise=PASS_ON)
def test_socket_io_client_connects(host: Host, target: Target, answers: dict[str, Answers], seen: Seen) -> None:
    """The real client, through nginx and TLS, over WebSocket only."""
    _server_answers(answers)
    needs(answers["upgrade"].direct.status == 101, "the API itself refuses the upgrade: see WebSocket server")
    through_nginx(host, answers, "socket")
    settings = target.settings
    found = target.program(
        "socket.js",
        folder=settings.app_dir,
        domain=settings.domain,
        address=target.site_address,
        browser=BROWSER,
    )
    assert found == "connected by websocket", f"the socket.io client fails: {found}"
    seen("the socket.io client connects over WebSocket through TLS")
