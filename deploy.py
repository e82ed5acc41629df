"""The runbook's table of contents: each call names one thing the host must have.

Order: what the API loads at its start comes before its restart; npm comes first: a restart without its packages
takes the site down. The database comes before the code that reads the new columns.
"""

import sys
from pathlib import Path

from pyinfra.context import host

sys.path.insert(0, str(Path(__file__).parent))  # the run may begin in another folder

import credentials
import terminal
from operations import dotenv, migration, nginx, npm, pm2, preflight, source, verification
from settings import Settings

terminal.attend()
settings = Settings.load(host.data.dict())
own = credentials.of_operator()
site = nginx.Site(settings.nginx_site, settings.domain, settings.app_dir, settings.api_port, settings.change_proxy_pass)

# One look at the host for all; where it cannot be read or lacks something, the run stops here with nothing changed.
preflight.check(host, settings, own, site)

npm.packages(name="npm packages", app=settings.api_app, app_dir=settings.app_dir, ranges=settings.packages)
migration.applied(
    name="Database migration",
    app_dir=settings.app_dir,
    database=own.database(settings.database_ca),
    pooled=own.pooled,
    lock_timeout=settings.lock_timeout,
    statement_timeout=settings.statement_timeout,
)
dotenv.secrets(name="Secrets in .env", path=settings.dotenv, values=own.keys, app=settings.api_app)
source.blocks(
    name="Application source", app=settings.api_app, app_dir=settings.app_dir, health_check=settings.health_check
)
nginx.site(name="nginx site", site=site)
nginx.current(name="nginx reload", site=site, timeout=settings.start_timeout)
pm2.current(name="API restart", api=settings.api)
verification.passes(name="Verification", wanted=settings.verify)
