"""Every setting with its default. Types, units and checks: settings.py. To differ for one group of the inventory,
put the setting into group_data/<group>.py; for one run, pass `--data setting=value`."""

# The application
app_dir = "/opt/ai-admin"
api_app = "ai-admin-api"  # its name in pm2 and in ecosystem.config.js
api_port = 3000
app_source = ""  # for bootstrap.py: its git URL as the host reaches it, or its folder on this machine

# The site is what nginx serves as <domain>, in whichever file; where nothing does, it is sites-available/<nginx_site>
domain = "ai-admin.app"
nginx_site = "ai-admin.app"

# Requests that your own locations pass to the API (`proxy_pass http://localhost:3000;`) wait too while it restarts:
# their proxy_pass gets another address, and keeps the old one in a comment. False leaves it, or puts it back
change_proxy_pass = True

# npm packages, each with the range to install where the application's own package.json lists none
packages = {
    "socket.io": "^4.8.1",
    "jsonwebtoken": "^9.0.2",
    "@whiskeysockets/baileys": "^7.0.0-rc.3",
}

# GET /marketplace/health-check is temporary by the requirements: False removes it again
health_check = True

# After a restart: seconds until the port must answer, then seconds that the process must stay the same (one is enough
# where it is the first one, and nothing was written to its error log)
start_timeout = 30
settle_time = 5

# The migration: seconds to wait for the table (meanwhile others wait behind it), and seconds for one statement
lock_timeout = 3
statement_timeout = 60

# A file on the host with the CA certificate of the database that DATABASE_URL names: then that database's certificate
# and name are checked (sslmode=verify-full); empty: as the URL says
database_ca = ""

# Seconds to wait while somebody else deploys to the same host
lock_wait = 0

# Where bin/verify --live asks about the partner token
yclients_api = "https://api.yclients.com/api/v1"

# Where the API connects to by TLS, besides the https addresses of its .env: bin/verify tries it from the host
outbound = ["api.yclients.com:443", "web.whatsapp.com:443"]

# Which deploy rollback.py undoes: its UTC time as in /var/backups/ai-admin-deploy, or "" for the last
undo = ""

# The plan that was approved, as `--dry --json` names it (`--data plan=…`): another one is refused
plan = ""

# Verify at the end of the run (`--data verify=true`)
verify = False

# bin/verify from outside: where <domain> is (addresses separated by commas), and a file with its CA certificate; empty:
# as DNS says, and the CAs that this machine trusts
verify_address = ""
verify_ca = ""
