"""bootstrap.py: from a Debian with nothing but systemd, sshd and apt to a host that deploy.py converges.

A story, its tests in order, of 15 minutes. Who signs is pebble, a real ACME server of Debian's, on the host itself.
"""

from __future__ import annotations

import re
import secrets
import subprocess
from collections.abc import Iterator
from functools import partial

import pytest

from tests.converge.conftest import APP, QUICK, apps, differing, read, replace, sql, through_nginx, tree, verify
from tests.converge.watcher import START, watching
from tests.rehearsal.host import Host, of_this_run, until
from tests.rehearsal.image import HERE
from tests.rehearsal.story import Deployed, deploy

pytestmark = [pytest.mark.slow, pytest.mark.long]

INVENTORY = "tests/rehearsal/bare.py"
SITE = "ai-admin.app"
LIVE = f"/etc/letsencrypt/live/{SITE}/fullchain.pem"
NODE = {"trixie": 20, "bookworm": 22}  # Debian 12's own is 18


@pytest.fixture(scope="module", params=["trixie", "bookworm"])
def bare(request: pytest.FixtureRequest) -> Iterator[Host]:
    host = of_this_run("bare", request.param)
    host.reset()
    yield host
    host.down()


def bootstrap(host: Host, *arguments: str) -> Deployed:
    return deploy(host, *arguments, file="bootstrap.py", inventory=INVENTORY)


def nothing_changes(host: Host) -> str:
    again = bootstrap(host)
    assert (again.code, again.changed) == (0, []), again.output
    return again.output


def owned(host: Host) -> dict[str, str]:
    """All but what certbot and apt note of their own runs."""
    return tree(host, "/etc", "/opt", "/var/lib", "/usr/local", "/root/.pm2/dump.pm2")


# --- nothing is there yet


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (f"mkdir -p {APP}; echo {{}} > {APP}/package.json", f"{APP} on NAME is not empty"),
        ("echo /srv/other > /var/lib/ai-admin-bootstrap", "NAME is not a bare host: it was made for /srv/other"),
        (
            "systemd-run -q -u busy --socket-property=ListenStream=443 true",
            "something listens on port 443; nothing was changed",
        ),
    ],
    ids=["an application", "another folder", "a site"],
)
def test_what_is_there_is_left_alone(bare: Host, plant: str, told: str) -> None:
    bare.ssh("sh -e", input=plant)
    before = owned(bare)
    try:
        done = bootstrap(bare)
    finally:
        bare.ssh(f"systemctl stop busy.socket 2>/dev/null; rm -rf {APP} /var/lib/ai-admin-bootstrap", check=False)
    assert done.code == 1
    assert told.replace("NAME", bare.name) in done.output
    assert "Traceback" not in done.output
    assert "Starting operation" not in done.output
    assert not {path for path in differing(before, owned(bare)) if not path.startswith((APP, "/var/lib/ai-admin"))}


def test_a_plan_changes_nothing(bare: Host) -> None:
    before = owned(bare)
    done = bootstrap(bare, "--dry")
    assert (done.code, "Certificate, self-signed" in done.changed) == (0, True), done.output
    assert differing(before, owned(bare)) == set()


def test_a_bare_host_becomes_one_that_deploy_converges(bare: Host) -> None:
    careful = bare.folder / "careful"  # as on the laptop of one whose umask is 077
    subprocess.run(["cp", "-r", str(HERE / "app"), str(careful)], check=True)
    subprocess.run(["chmod", "-R", "go=", str(careful)], check=True)
    done = bootstrap(bare, "--data", f"app_source={careful}")
    assert done.code == 0, done.output
    assert f"{SITE} points to no address, and this host is {bare.address}" in done.output
    nothing_changes(bare)
    assert int(bare.ssh("node --version").stdout.lstrip("v").partition(".")[0]) == NODE[bare.bare]

    schema = re.search(r"<<'SQL'\n(.*?)^SQL$", (HERE / "provision.sh").read_text(), re.MULTILINE | re.DOTALL)
    assert schema
    sql(bare, re.sub("CREATE ROLE.*", "", schema[1]))  # the operator's own dump
    converged = deploy(bare, *QUICK)
    assert converged.code == 0, converged.output
    assert deploy(bare, *QUICK).changed == []
    nothing_changes(bare)  # what deploy.py has added stays
    ready(bare)


def ready(host: Host) -> None:
    """But for the tokens, and for the certificate, which nobody renews while it is self-signed."""
    found = verify(host, INVENTORY)
    lacking = {name for name, status in found.rows.items() if status != "ready"}
    assert lacking == {"Partner Token", "Application ID", "HTTPS/SSL"}, found.output
    assert "there is no /etc/letsencrypt/renewal/" in " ".join(found.output.split()), found.output


def test_only_ssh_and_the_site_come_in(bare: Host) -> None:
    def answers(port: int) -> bool:
        probe = f"exec 3<>/dev/tcp/{bare.address}/{port}"
        return subprocess.run(["timeout", "3", "bash", "-c", probe], capture_output=True).returncode == 0

    bare.ssh("systemd-run -q -u open --socket-property=ListenStream=8080 true")
    assert [port for port in (22, 80, 443, 3000, 5432, 6379, 8080) if answers(port)] == [22, 80, 443]


def test_passwords_follow_the_env_and_are_seen_nowhere(bare: Host) -> None:
    """As when the operator brings the `.env` of the old host."""
    own = {key: f"{START}{secrets.token_hex(9)} #\\x41'" for key in ("REDIS_PASSWORD", "POSTGRES_PASSWORD")}
    for key, value in own.items():
        old = re.search(rf"^{key}=.*$", read(bare, f"{APP}/.env").decode(), re.MULTILINE)
        assert old
        replace(bare, f"{APP}/.env", old[0], f'{key}="{value}"')
    before = read(bare, f"{APP}/.env")
    with watching(bare, list(own.values())) as watcher:
        run = partial(bootstrap, bare, "-vvv", "--debug")
        done = watcher.during(run) if bare.bare == "trixie" else run()  # it does not know OpenSSH 9's sessions
    assert (done.code, done.changed) == (0, ["Passwords"]), done.output
    assert watcher.hits == set()
    assert not [value for value in own.values() if value in done.output]
    assert read(bare, f"{APP}/.env") == before
    nothing_changes(bare)
    assert deploy(bare, *QUICK).changed == ["API restart"]
    ready(bare)


def test_an_env_without_the_password_of_redis_is_told(bare: Host) -> None:
    before = read(bare, f"{APP}/.env")
    replace(bare, f"{APP}/.env", "REDIS_PASSWORD=", "REDIS_PASS=")
    done = bootstrap(bare)
    assert done.code == 1
    assert f"{APP}/.env has no REDIS_PASSWORD" in done.output
    bare.ssh(f"cat > {APP}/.env", input=before.decode())


def test_lost_packages_come_back_and_the_source_of_the_host_stays(bare: Host) -> None:
    """Somebody pulled a newer one since."""
    app = f"{APP}/src/integrations/whatsapp/session-pool.js"
    newer = read(bare, app) + b"// newer\n"
    bare.ssh(f"cat > {app}; rm -r {APP}/node_modules", input=newer.decode())
    done = bootstrap(bare)
    assert (done.code, done.changed) == (0, ["npm ci"]), done.output
    assert read(bare, app) == newer
    assert deploy(bare, *QUICK).code == 0


def test_nginx_reads_what_a_careful_laptop_had(bare: Host) -> None:
    bare.ssh(f"cd /; runuser -u www-data -- find {APP}/public -type f -exec cat {{}} + > /dev/null")
    assert bare.ssh(f"stat -c %a {APP}/package.json").stdout.strip() == "600", "what is not for it stays as it was"


def test_it_comes_back_after_a_power_cut(bare: Host) -> None:
    bare.power_cycle()
    until(120, "the API", lambda: '"status":"ok"' in through_nginx(bare, "/marketplace/health-check"))
    assert apps(bare)["ai-admin-api"].status == "online"
    assert bare.ssh("nft list ruleset").stdout.count("policy drop") == 1
    nothing_changes(bare)


# --- from git


def test_a_lost_application_comes_back_from_git(bare: Host) -> None:
    repository = bare.root / "srv/app.git"
    work = bare.folder / "work-tree"
    commands = [
        ["git", "init", "-q", "--bare", str(repository)],
        ["cp", "-r", str(HERE / "app"), str(work)],
        ["rm", str(work / ".env")],
        ["git", "-C", str(work), "init", "-q"],
        ["git", "-C", str(work), "add", "."],
        ["git", "-C", str(work), "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "The app"],
        ["git", "-C", str(work), "push", "-q", str(repository), "HEAD:refs/heads/master"],
    ]
    for command in commands:
        subprocess.run(command, check=True)
    bare.ssh(f"rm -rf {APP}")
    done = bootstrap(bare, "--data", "app_source=file:///srv/app.git")
    assert done.code == 0, done.output
    assert {"Application", "npm ci", "Passwords"} <= {*done.changed}
    again = bootstrap(bare, "--data", "app_source=file:///srv/app.git")
    assert (again.code, again.changed) == (0, []), again.output
    converged = deploy(bare, *QUICK)
    assert converged.code == 0, converged.output
    ready(bare)


# --- the certificate

ACME = f"""
apt-get -qq install pebble >/dev/null 2>&1
mkdir -p /srv/acme && cd /srv/acme
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \\
  -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem 2>/dev/null
cat > config.json <<END
{{"pebble": {{"listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000", "httpPort": 80,
  "certificate": "/srv/acme/cert.pem", "privateKey": "/srv/acme/key.pem", "tlsPort": 443, "ocspResponderURL": ""}}}}
END
printf 'server = https://localhost:14000/dir\\nno-verify-ssl = true\\n' > /etc/letsencrypt/cli.ini
echo "127.0.1.1 {SITE}" >> /etc/hosts  # as Debian's installer does; certbot's server asks DNS
apt-get -qq install dnsmasq-base >/dev/null 2>&1
cp /etc/resolv.conf /srv/acme/resolv.conf
"""
DNS = (
    "systemd-run -q -u dns dnsmasq -k --no-hosts --resolv-file=/srv/acme/resolv.conf --listen-address=127.0.0.1 "
    f"--bind-interfaces --address=/{SITE}/$(hostname -I | cut -d' ' -f1)"
    " && echo nameserver 127.0.0.1 > /etc/resolv.conf"
)
PEBBLE = (
    "systemd-run -q -u acme -E PEBBLE_VA_NOSLEEP=1 -E PEBBLE_WFE_NONCEREJECT=0 pebble -config /srv/acme/config.json"
)


def served(host: Host) -> str:
    """Who signed what nginx serves, and its number."""
    asked = f"openssl s_client -connect 127.0.0.1:443 -servername {SITE} </dev/null 2>/dev/null"
    return host.ssh(f"{asked} | openssl x509 -noout -issuer -serial").stdout


def test_certbot_that_fails_leaves_the_certificate_that_is_there(bare: Host) -> None:
    bare.ssh("sh -e", input=ACME)
    nothing_changes(bare)  # the name leads here by /etc/hosts alone
    bare.ssh(DNS)
    until(60, "DNS", lambda: bare.address in bare.ssh(f"getent -s dns ahosts {SITE}", check=False).stdout)
    before, files = served(bare), read(bare, LIVE)
    done = bootstrap(bare)  # nobody listens at port 14000
    assert done.code == 1, done.output
    assert (served(bare), read(bare, LIVE)) == (before, files)
    bare.ssh("nginx -t")


def test_certbot_is_asked_once_the_name_leads_here(bare: Host) -> None:
    bare.ssh(PEBBLE)
    until(60, "pebble", lambda: bare.ssh("curl -sk https://localhost:14000/dir", check=False).returncode == 0)
    done = bootstrap(bare)
    assert (done.code, done.changed) == (0, ["Certificate, by certbot"]), done.output
    first = served(bare)
    assert "Pebble" in first
    nothing_changes(bare)
    assert deploy(bare, *QUICK).changed == []
    bare.ssh("certbot renew --force-renewal --no-random-sleep-on-renew")
    until(60, "nginx to serve the renewed one", lambda: served(bare) != first)
    assert "Pebble" in served(bare)
    bare.ssh("systemctl is-enabled certbot.timer")
