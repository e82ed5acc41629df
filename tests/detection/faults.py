"""Every fault that verification detects: how to plant it, which checks must fail, and with what cause and remedy."""

from __future__ import annotations

from dataclasses import dataclass

KEYS = ("YCLIENTS_PARTNER_TOKEN", "YCLIENTS_APP_ID", "JWT_SECRET")
TOKENS = KEYS[:2]
PACKAGES = ("socket.io", "jsonwebtoken", "@whiskeysockets/baileys")
OF_KEYS = ("Partner Token", "Application ID", "JWT Secret")
OF_PACKAGES = ("WebSocket server", "JWT Secret", "Baileys integration")
METHODS = ["createSession", "getQR", "getSession", "getSessionStatus"]  # its repr is valid JavaScript
DEPLOY = "deploy.py"
PAGE = "location = /marketplace/onboarding"
TO_API = "proxy_pass http://127.0.0.1:3000;"


def each(check: str, *cases: str) -> tuple[str, ...]:
    return tuple(f"{check}[{case}]" for case in cases)


@dataclass(frozen=True)
class Fault:
    """`plant` and `undo` are shell, with the functions of host.sh. `fails` are exactly the checks that fail, or
    are pending where `code` is 2. With `hides`, others cannot be judged while the fault is there. `typed`: the remedy
    is a command, which puts it right when it is typed on the host."""

    name: str
    plant: str
    undo: str
    fails: tuple[str, ...]
    rows: tuple[str, ...]
    cause: str
    remedy: str = DEPLOY
    hides: bool = False
    typed: bool = False
    code: int = 1
    where: str = "host"  # or "here": on this machine; or "dns": the domain points to this machine


FAULTS = [
    # --- the API
    Fault(
        "pm2 stopped it",
        "pm2 stop ai-admin-api >/dev/null",
        "restart; reload",  # nginx considers a failed upstream down for 10 s
        ("pm2_runs_the_api", "health", *each("server", "polling", "upgrade")),
        ("Endpoints", "WebSocket server"),
        "pm2 does not run ai-admin-api",
        hides=True,
    ),
    Fault(
        "a copy started by hand holds the port",
        "edit $app/.env s/^PORT=3000/PORT=3001/; restart 3001; cd $app;"
        " PORT=3000 setsid node src/index.js >/dev/null 2>&1 & echo $! > /root/copy; on 3000",
        "kill -9 $(cat /root/copy); back $app/.env; restart",
        ("the_port_is_held_by_pm2s_process",),
        ("Endpoints",),
        "held by a process that is not pm2's",
        "stop the process",
    ),
    Fault(
        "it runs without pm2",
        "pm2 stop ai-admin-api >/dev/null; cd $app;"
        " setsid node src/index.js >/dev/null 2>&1 & echo $! > /root/copy; on 3000",
        "kill -9 $(cat /root/copy); restart; reload",
        ("pm2_runs_the_api", "the_port_is_held_by_pm2s_process"),
        ("Endpoints",),
        "held by a process that is not pm2's",
        "stop the process",
        hides=True,
    ),
    Fault(
        "another user's pm2 has it too",
        "useradd -m app; cd $app;"
        " runuser -u app -- pm2 start src/index.js --name ai-admin-api -o /dev/null -e /dev/null >/dev/null",
        "cd /; runuser -u app -- pm2 kill >/dev/null; userdel -rf app 2>/dev/null",
        ("no_other_pm2_has_the_api",),
        ("Endpoints",),
        "a second pm2, of user app, has ai-admin-api too",
        "(as app) pm2 delete",
    ),
    Fault(
        "it crashes",
        "for i in 1 2 3; do kill -9 $(cat $pids/ai-admin-api-*.pid); sleep 0.5; on 3000; done",
        ": > /root/.pm2/pm2.log",
        ("it_does_not_crash",),
        ("Endpoints",),
        "crash loop",
        "pm2 logs",
    ),
    Fault(
        "redis is down",
        "systemctl stop redis-server",
        "systemctl start redis-server; on 3000",
        ("health",),
        ("Endpoints",),
        "redis or the database is down",
        "systemctl status redis-server",
    ),
    Fault(
        "no health check in the source",
        "edit $routes s,/marketplace/health-check,/marketplace/elsewhere,; restart",
        "back $routes; restart",
        ("health_check_route",),
        ("Endpoints",),
        "no route /marketplace/health-check",
        hides=True,
    ),
    Fault(
        "an older router answers first",
        "edit $app/src/index.js"
        " \"/^app.use.'.', marketplace/i app.get('/marketplace/health-check', (_, r) => r.json({ ok: 1 }));\"; restart",
        "back $app/src/index.js; restart",
        ("no_older_route_answers",),
        ("Endpoints",),
        "an older route",
        "remove the older route",
        hides=True,
    ),
    Fault(
        "nginx keeps the health check to itself",
        "tls 'location = /marketplace/health-check { return 404; }'",
        "back $site; reload",
        ("health_check_through_nginx",),
        ("Endpoints",),
        "404 through nginx",
    ),
    Fault(
        "no location /auth/",
        "tls 'location /auth/yclients/ { try_files /none /index.html; }'",
        "back $site; reload",
        ("redirect_wants_a_salon",),
        ("Endpoints",),
        "landing page for /auth/",
        hides=True,
    ),
    Fault(
        "the older router of YClients is mounted first",
        "edit $app/src/index.js"
        " \"/^app.use.'.auth', yclients/d;/^app.use.'.', marketplace/iapp.use('/auth', yclients);\"; restart",
        "back $app/src/index.js; restart",
        ("redirect_is_answered_by_the_marketplace", "no_router_stands_before_the_marketplace"),
        ("Endpoints",),
        "src/api/routes/yclients.js line 6 answers /auth/yclients/redirect before",
        "mount src/api/routes/yclients-marketplace.js before the other router",
    ),
    Fault(
        "the QR endpoint lets anybody in",
        "edit $routes 's/status\\(401\\)/status(200)/'; restart",
        "back $routes; restart",
        ("qr_wants_a_token",),
        ("Endpoints",),
        "without a token answers 200",
        "refuse a request without a token",
    ),
    Fault(
        ".env was changed after the start",
        "touch $app/.env",
        "restart",
        ("runs_what_is_on_disk[env]",),
        ("Endpoints",),
        ".env was changed after the API started",
    ),
    Fault(
        "the source was changed after the start",
        "touch $app/src/config.js",
        "restart",
        ("runs_what_is_on_disk[source]",),
        ("Endpoints",),
        "config.js was changed after the API started",
    ),
    Fault(
        "a package was changed after the start",
        "touch $app/node_modules/jsonwebtoken/package.json",
        "restart",
        ("runs_what_is_on_disk[packages]",),
        ("Endpoints",),
        "package.json was changed after the API started",
    ),
    Fault(
        "pm2 does not start at boot",
        "systemctl disable -q pm2-root",
        "systemctl enable -q pm2-root",
        ("starts_at_boot",),
        ("Endpoints",),
        "pm2 does not start at boot",
        "pm2 startup",
    ),
    Fault(
        "pm2's list was saved without it",
        'edit /root/.pm2/dump.pm2 \'s/"name": "ai-admin-api"/"name": "other"/\'',
        "back /root/.pm2/dump.pm2",
        ("is_in_pm2s_saved_list",),
        ("Endpoints",),
        "not in pm2's saved list",
        "pm2 save",
    ),
    Fault(
        "port 3000 is open to the world",
        "nft flush chain ip $table $firewall",
        "nft add rule ip $table $firewall ip daddr $address tcp dport 3000 drop",
        ("port_is_closed_to_the_world",),
        ("Endpoints",),
        "open to the world",
        "firewall",
        where="here",
    ),
    Fault(
        "the disk is full",
        "mount -t tmpfs -o size=64k tmpfs $app/logs; head -c 64k /dev/zero > $app/logs/big",
        "umount $app/logs",
        ("disk_has_room[used]",),
        ("Endpoints",),
        "nearly full",
        "du -xh",
    ),
    Fault(
        "no inodes are left",
        "mount -t tmpfs -o size=1m,nr_inodes=3 tmpfs $app/logs; touch $app/logs/1 $app/logs/2",
        "umount $app/logs",
        ("disk_has_room[inodes]",),
        ("Endpoints",),
        "nearly full (inodes)",
        "du -xh",
    ),
    # --- TLS, and from outside
    Fault(
        "DNS points elsewhere",
        "",
        "",
        ("dns_points_to_the_host", "certificate_is_trusted_from_outside"),
        ("HTTPS/SSL",),
        "is not this host",
        "A (and AAAA) record",
        hides=True,
        where="dns",
    ),
    Fault(
        "an untrusted certificate",
        "mkdir /root/other; certificate ai-admin.app 90 /root/other; edit $site s,$live,/root/other,; reload",
        "back $site; rm -r /root/other; reload",
        ("certificate_is_trusted_from_outside", "certificate_on_disk_is_served"),
        ("HTTPS/SSL",),
        "from outside, https fails: self",
        "certbot",
        hides=True,
    ),
    Fault(
        "the page is only for the host itself",
        f"tls '{PAGE} {{ allow 127.0.0.1; deny all; {TO_API} }}'",
        "back $site; reload",
        ("page_answers_the_same_from_outside",),
        ("HTTPS/SSL",),
        "400 on the host and 403 from outside",
        "firewall",
    ),
    Fault(
        "no redirect to https",
        "edit $site 's/return 301 .*/return 200 plain;/'; reload",
        "back $site; reload",
        ("http_redirects_to_https",),
        ("HTTPS/SSL",),
        "instead of redirecting to https",
        "return 301",
    ),
    Fault(
        "the certificate expires soon",
        "keep_certificate; certificate ai-admin.app 9; reload",
        "back_certificate",
        ("certificate_lasts",),
        ("HTTPS/SSL",),
        "expires in 8 days",
        "certbot renew",
    ),
    Fault(
        "a certificate for another name",
        "keep_certificate; certificate other.example 90; reload",
        "back_certificate",
        ("certificate_is_for_the_domain", "certificate_is_trusted_from_outside"),
        ("HTTPS/SSL",),
        "does not match the domain",
        "certbot --nginx -d",
        hides=True,
    ),
    Fault(
        "renewed and not loaded",
        "keep_certificate; certificate ai-admin.app 90",
        "back_certificate",
        ("certificate_on_disk_is_served", "certificate_is_trusted_from_outside"),
        ("HTTPS/SSL",),
        "renewed but not loaded",
        "systemctl reload nginx",
        hides=True,
    ),
    # --- the page, the WebSocket server
    Fault(
        "the landing page for onboarding",
        f"tls '{PAGE} {{ if ($arg_token = \"\") {{ rewrite ^ /index.html last; }} {TO_API} }}'",
        "back $site; reload",
        ("onboarding_wants_a_token",),
        ("HTML page",),
        "landing page for /marketplace/onboarding",
    ),
    Fault(
        "the page is missing",
        "mv $app/public/marketplace/onboarding.html /root/",
        "mv /root/onboarding.html $app/public/marketplace/",
        ("onboarding_page",),
        ("HTML page",),
        "answers 404",
        "deploy the application again",
    ),
    Fault(
        "socket.io listens elsewhere",
        "edit $socket \"s,path: '/socket.io/',path: '/ws/',\"; restart",
        "back $socket; restart",
        each("server", "polling", "upgrade"),
        ("WebSocket server",),
        "a socket.io handshake on the API's port answers 404",
        "pm2 logs",
        hides=True,
    ),
    Fault(
        "socket.io only does polling",
        "edit $socket \"s,path: '/socket.io/',path: '/socket.io/'\\, transports: ['polling'],\"; restart",
        "back $socket; restart",
        ("server[upgrade]",),
        ("WebSocket server",),
        "not 101",
        "pm2 logs",
        hides=True,
    ),
    Fault(
        "packages are missing",
        "mkdir -p /root/away/@whiskeysockets;"
        " for each in $packages; do mv $app/node_modules/$each /root/away/$each; done",
        "for each in $packages; do mv /root/away/$each $app/node_modules/$each; done",
        (*each("package_is_installed", *PACKAGES), "session_pool_loads"),
        OF_PACKAGES,
        "not in node_modules",
        hides=True,
    ),
    Fault(
        "packages of another major",
        "for each in $packages; do edit $(package $each) '/\"version\":/s/[0-9]*\\./2./'; done; restart",
        "for each in $packages; do back $(package $each); done; restart",
        each("package_has_the_right_major", *PACKAGES),
        OF_PACKAGES,
        "the application needs",
    ),
    # --- nginx
    Fault(
        "nginx does not run",
        "systemctl stop nginx",
        "systemctl start nginx",
        ("nginx_runs",),
        ("Nginx WebSocket",),
        "nginx does not run",
        "enable --now nginx",
        hides=True,
    ),
    Fault(
        "nginx does not start at boot",
        "systemctl disable -q nginx",
        "systemctl enable -q nginx",
        ("nginx_starts_at_boot",),
        ("Nginx WebSocket",),
        "nginx does not start at boot",
        "systemctl enable nginx",
    ),
    Fault(
        "nginx refuses its configuration",
        "echo 'bogus on;' > /etc/nginx/conf.d/broken.conf",
        "rm /etc/nginx/conf.d/broken.conf; reload",
        ("nginx_accepts_its_configuration",),
        ("Nginx WebSocket",),
        'unknown directive "bogus"',
        "nginx -t",
        hides=True,
    ),
    Fault(
        "a backup inside sites-enabled",
        "cp $site $enabled.bak; reload",
        "rm $enabled.bak; reload",
        ("no_site_hides_another",),
        ("Nginx WebSocket",),
        "conflicting server name",
        "move the second file",
    ),
    Fault(
        "sites-enabled holds a copy",
        "rm $enabled; cp $site $enabled; reload",
        "ln -sf $site $enabled; reload",
        ("enabled_site_is_the_one_to_edit",),
        ("Nginx WebSocket",),
        "sites-enabled holds a copy",
    ),
    Fault(
        "edited and not reloaded",
        "touch $site",
        "reload",
        ("nginx_runs_what_is_on_disk",),
        ("Nginx WebSocket",),
        "nginx does not run the configuration on disk",
    ),
    Fault(
        "the landing page for /socket.io/",
        "edit $site 's,location /socket.io/,location /elsewhere/,'; reload",
        "back $site; reload",
        ("handshake_through_nginx", "upgrade_through_nginx", "socket_io_client_connects"),
        ("Nginx WebSocket",),
        "with the landing page",
    ),
    Fault(
        "nginx drops the upgrade",
        "edit $site '/proxy_set_header Upgrade/d'; reload",
        "back $site; reload",
        ("upgrade_through_nginx", "socket_io_client_connects"),
        ("Nginx WebSocket",),
        "fails in nginx",
        '"WebSocket connection failed"',
    ),
    # --- the keys
    Fault(
        "tokens have not come",
        "edit $app/.env /^YCLIENTS_PARTNER_TOKEN=/d\\;/^YCLIENTS_APP_ID=/d; restart",
        "back $app/.env; restart",
        (*each("set", *TOKENS), *each("reaches_the_api", *TOKENS)),
        OF_KEYS[:2],
        "in .env is absent",
        "when YClients has sent it",
        code=2,
    ),
    Fault(
        "tokens are placeholders",
        "edit $app/.env 's/^(YCLIENTS_PARTNER_TOKEN=).*/\\1test_token_waiting_for_real/"
        ";s/^(YCLIENTS_APP_ID=).*/\\1ваш_токен/'; restart",
        "back $app/.env; restart",
        (*each("set", *TOKENS), *each("reaches_the_api", *TOKENS)),
        OF_KEYS[:2],
        "is a placeholder",
        "when YClients has sent it",
        code=2,
    ),
    Fault(
        "no JWT_SECRET",
        "edit $app/.env /^JWT_SECRET=/d; restart",
        "back $app/.env; restart",
        ("set[JWT_SECRET]",),
        ("JWT Secret",),
        "signs with its public default",
        hides=True,
    ),
    Fault(
        "no line break before JWT_SECRET",
        "keep $app/.env; sed -zi 's/\\nJWT_SECRET=/JWT_SECRET=/' $app/.env; restart",
        "back $app/.env; restart",
        ("set[JWT_SECRET]",),
        ("JWT Secret",),
        "stands at the end of another line",
        hides=True,
    ),
    Fault(
        "written and not restarted",
        "edit $app/.env '/^YCLIENTS_PARTNER_TOKEN=/d;/^YCLIENTS_APP_ID=/d;/^JWT_SECRET=/d'; restart; back $app/.env",
        "restart",
        (*each("reaches_the_api", *KEYS), "runs_what_is_on_disk[env]"),
        (*OF_KEYS, "Endpoints"),
        "the running API does not have it",
        '"Invalid partner token"',
    ),
    Fault(
        "pm2's environment overrides them",
        "export YCLIENTS_PARTNER_TOKEN=x YCLIENTS_APP_ID=x JWT_SECRET=x;"
        " pm2 restart ai-admin-api --update-env >/dev/null; on 3000",
        "exec >/dev/null; pm2 delete ai-admin-api; cd $app; pm2 start ecosystem.config.js --only ai-admin-api;"
        " on 3000; pm2 save",
        each("is_not_shadowed", *KEYS),
        OF_KEYS,
        "is overridden by pm2's own environment",
        "removes the value from pm2",
    ),
    Fault(
        "a JWT_SECRET that can be guessed",
        "edit $app/.env s/^JWT_SECRET=.*/JWT_SECRET=salon2025/; restart",
        "back $app/.env; restart",
        ("secret_is_long",),
        ("JWT Secret",),
        "can be guessed",
    ),
    Fault(
        "JWT_SECRET is the public default",
        "edit $app/.env s/^JWT_SECRET=.*/JWT_SECRET=a-secret-that-only-this-source-knows-2025/; restart",
        "back $app/.env; restart",
        ("secret_is_not_public",),
        ("JWT Secret",),
        "the application's own default",
        hides=True,
    ),
    Fault(
        "others can read .env",
        "chmod 644 $app/.env; restart",
        "chmod 600 $app/.env; restart",
        ("dotenv_is_private",),
        ("JWT Secret",),
        "can be read by other users: mode 644",
        "chmod 600",
    ),
    Fault(
        "the clock is off",  # the real clock is shared with this machine, so `date` is faked
        'fake date \'/usr/bin/date -d "5 minutes" "$@"\'',
        "rm /usr/local/bin/date",
        ("clock_is_right",),
        ("JWT Secret",),
        "s ahead of this machine's",
        "timedatectl",
    ),
    # --- the database, Baileys
    Fault(
        "no table companies",
        "sql 'ALTER TABLE companies RENAME TO firms'",
        "sql 'ALTER TABLE firms RENAME TO companies'",
        ("database_has_the_companies",),
        ("Database",),
        "no table companies",
        "DATABASE_URL",
        hides=True,
    ),
    Fault(
        "the migration has not been applied",
        "sql 'ALTER TABLE companies RENAME api_key TO key; ALTER TABLE companies RENAME webhook_secret TO secret'",
        "sql 'ALTER TABLE companies RENAME key TO api_key; ALTER TABLE companies RENAME secret TO webhook_secret'",
        ("companies_has_the_columns",),
        ("Database",),
        "without api_key, webhook_secret",
        '"Column does not exist"',
    ),
    Fault(
        "a column that the entry writes has another name",
        "sql 'ALTER TABLE companies RENAME name TO title; ALTER TABLE companies ALTER title DROP NOT NULL'",
        "sql 'ALTER TABLE companies DROP name; ALTER TABLE companies RENAME title TO name;"
        " ALTER TABLE companies ALTER name SET NOT NULL'",
        ("the_entry_can_write_its_salon",),
        ("Database",),
        "no salon gets in: no column name",
        'psql -d postgres -c "ALTER TABLE companies ADD COLUMN name text"',
        typed=True,
    ),
    Fault(
        "a column that the entry does not write must not be empty",
        "sql 'UPDATE companies SET company_id = id; ALTER TABLE companies ALTER company_id SET NOT NULL'",
        "sql 'ALTER TABLE companies ALTER company_id DROP NOT NULL'",
        ("the_entry_can_write_its_salon",),
        ("Database",),
        'null value in column "company_id"',
        'psql -d postgres -c "ALTER TABLE companies ALTER COLUMN company_id DROP NOT NULL"',
        typed=True,
    ),
    Fault(
        "nothing makes the entry's key unique",
        "sql 'ALTER TABLE companies DROP CONSTRAINT companies_yclients_id_key'",
        "sql 'DROP INDEX companies_yclients_id_idx; ALTER TABLE companies ADD UNIQUE (yclients_id)'",
        ("the_entry_can_write_its_salon",),
        ("Database",),
        "no unique or exclusion constraint",
        'psql -d postgres -c "CREATE UNIQUE INDEX CONCURRENTLY ON companies (yclients_id)"',
        typed=True,
    ),
    Fault(
        "the application's role may not write companies",
        "sql 'ALTER TABLE companies OWNER TO postgres'",
        "sql 'ALTER TABLE companies OWNER TO ai_admin'",
        ("the_entry_can_write_its_salon",),
        ("Database",),
        "the role ai_admin may not write into companies",
        "GRANT SELECT, INSERT, UPDATE ON companies TO ai_admin; GRANT USAGE ON SEQUENCE public.companies_id_seq",
        typed=True,
    ),
    Fault(
        "the session pool lacks its methods",
        f'add $pool "for (const name of {METHODS}) delete WhatsAppSessionPool.prototype[name];"; restart',
        "back $pool; restart",
        (*each("session_pool_has", *METHODS), "session_pool_has_what_is_called"),
        ("Baileys integration",),
        "has no getQR",
        "\"Cannot read property 'getQR' of undefined\"",
        hides=True,
    ),
    Fault(
        "the routes call what the session pool never had",
        "edit $routes 's/sessionPool.getQR/sessionPool.scanQR/'; restart",
        "back $routes; restart",
        ("session_pool_has_what_is_called",),
        ("Baileys integration",),
        "no scanQR() (src/api/routes/yclients-marketplace.js line 50)",
        "the application's developers must add",
    ),
    Fault(
        "its methods return nonsense",
        f"add $pool \"for (const name of {METHODS[1:]}) WhatsAppSessionPool.prototype[name] = () => 'x';\"; restart",
        "back $pool; restart",
        each("session_pool_method_works", *METHODS[1:]),
        ("Baileys integration",),
        "called for an existing session: wrong",
        "session-pool.js",
    ),
    Fault(
        "createSession calls itself endlessly",
        "add $pool 'Object.assign(WhatsAppSessionPool.prototype,"
        " { createSession(id) { return this.getOrCreateSession(id); } });'; restart",
        "back $pool; restart",
        ("session_pool_is_not_recursive",),
        ("Baileys integration",),
        "in an endless loop",
        "create the session itself",
    ),
    Fault(
        "node is too old",  # `node --version` is faked
        "mv /usr/bin/node /usr/bin/nodejs20;"
        ' fake node \'[ "$1" = --version ] && echo v18.20.4 || exec /usr/bin/nodejs20 "$@"\';'
        " mv /usr/local/bin/node /usr/bin/node",
        "mv /usr/bin/nodejs20 /usr/bin/node",
        ("node_is_new_enough",),
        ("Baileys integration",),
        "node is v18.20.4, @whiskeysockets/baileys needs >=20",
        "Node.js 20",
    ),
]
