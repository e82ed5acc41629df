"""From a bare Debian to a host that deploy.py can converge. Its application must not be there yet.

Order: nothing is done before it is known that there is nothing to break. certbot comes last: where it fails, the site
is there, with a certificate that it signed itself.
"""

import sys
from pathlib import Path

from pyinfra.context import host

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the run may begin in another folder

from pyinfra.facts.deb import DebPackages
from pyinfra.facts.files import File
from pyinfra.operations import apt, files, git, npm, server, systemd

import credentials
import terminal
from facts.bare import MADE
from operations import bare
from settings import Settings

# Pinned. Debian 12's own Node is 18, and baileys 7 wants 20: there npm's package `node` brings one, from the registry
NODE, PM2 = "node@22.23.3", "pm2@7.0.4"
UTF8 = {"LC_ALL": "C.UTF-8"}  # pyinfra 3.10 reads what `npm list` draws in this alone

terminal.attend()
settings = Settings.load(host.data.dict())
app, domain = settings.app_dir, settings.domain
has_database = credentials.of_operator().database_url is None
now = bare.check(host, settings)
is_git = not bare.is_folder(settings.app_source)
live, renewal = f"/etc/letsencrypt/live/{domain}", f"/etc/letsencrypt/renewal/{domain}.conf"
site = f"/etc/nginx/sites-available/{settings.nginx_site}"


def lacks(path: str) -> bool:
    return host.get_fact(File, path=path) is None  # False is a link, as certbot's are


if not now["made"]:
    server.shell(name="Sign of bootstrap.py", commands=[f"printf '%s\\n' {app} > {MADE}"])

packages = ["nftables", "ca-certificates", "openssl", "curl", "iproute2", "procps", "python3"]
packages += ["nginx", "certbot", "redis-server", "nodejs", "npm"]
packages += ["postgresql"] if has_database else ["postgresql-client"]
packages += ["git"] if is_git else []
is_lacking = not {*packages} <= host.get_fact(DebPackages).keys()
apt.packages(name="Debian's packages", packages=packages, update=is_lacking, no_recommends=True)
firewall = files.template(
    name="Firewall",
    src=str(HERE / "templates/etc/nftables.conf.j2"),
    dest="/etc/nftables.conf",
    mode="755",
    ports=sorted({*bare.ssh_ports(host), "80", "443"}, key=int),
)
systemd.service(name="Firewall runs", service="nftables", enabled=True)
systemd.service(name="Firewall reload", service="nftables", reloaded=True, _if=firewall.did_change)
if now["system"] != ["debian 13"]:
    npm.packages(name="Node 22", packages=[NODE], _env=UTF8)
npm.packages(name="pm2", packages=[PM2], _env=UTF8)

is_first = lacks("/etc/systemd/system/pm2-root.service")  # the API never ran
is_whole = not lacks(f"{app}/node_modules/.package-lock.json")  # npm writes it last: source and packages are there
if not is_whole and (is_first or lacks(f"{app}/package.json")):  # else the source may be newer than ours
    if is_git:
        git.repo(name="Application", src=settings.app_source, dest=app, pull=False)
    else:
        files.sync(
            name="Application",
            src=str(bare.folder(settings.app_source)),
            dest=app,
            exclude="*/.env*",
            exclude_dir=["node_modules", ".git"],
            add_deploy_dir=False,
        )
        server.shell(
            name="Application is read by nginx",  # the laptop's modes may be those of a careful umask
            commands=[f"chmod go+rx {app}; [ ! -d {app}/public ] || chmod -R u=rwX,go=rX {app}/public"],
        )
if not is_whole:
    server.shell(name="npm ci", commands=[f"umask 022; cd {app} && npm ci --omit=dev --no-audit --no-fund"])
bare.passwords(name="Passwords", app_dir=app, port=settings.api_port, database=has_database)

if is_first:
    server.shell(
        name="API under pm2",
        commands=[
            f"cd {app} && pm2 start ecosystem.config.js --only {settings.api_app}",
            "pm2 save",
            "pm2 startup systemd -u root --hp /root",
            "pm2 kill",  # it was the connection's; from here on it is the boot unit's
        ],
        _env={"PM2_HOME": "/root/.pm2"},
    )
systemd.service(name="pm2 runs", service="pm2-root", enabled=True)

if lacks(f"{live}/fullchain.pem"):
    server.shell(
        name="Certificate, self-signed",
        commands=[
            f"mkdir -p {live}",
            "umask 077; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 "
            f"-subj /CN={domain} -addext subjectAltName=DNS:{domain} "
            f"-keyout {live}/privkey.pem -out {live}/fullchain.pem",
        ],
    )
if lacks(site):
    files.template(
        name="nginx site",
        src=str(HERE / "templates/etc/nginx/sites-available/ai-admin.app.j2"),
        dest=site,
        domain=domain,
        app_dir=app,
    )
    files.link(name="nginx site enabled", path=f"/etc/nginx/sites-enabled/{settings.nginx_site}", target=site)
    files.link(name="nginx default site", path="/etc/nginx/sites-enabled/default", present=False)
    systemd.service(name="nginx runs", service="nginx", enabled=True, reloaded=True)

why = bare.self_signed(now, domain)
if lacks(renewal) and why:
    host.log(f"  the certificate is self-signed: {why}; run bootstrap.py again when it points here")
elif lacks(renewal):
    server.shell(
        name="Certificate, by certbot",
        commands=[
            # certbot takes no name that is there already; nginx serves what it has loaded meanwhile
            f"rm -rf {live}.self-signed; mv {live} {live}.self-signed && if certbot certonly --non-interactive "
            "--agree-tos --register-unsafely-without-email --webroot --webroot-path /var/www/html "
            f"--domain {domain} "
            f"--deploy-hook 'systemctl reload nginx'; then rm -r {live}.self-signed; "
            f"else mv {live}.self-signed {live}; exit 1; fi",
        ],
    )
