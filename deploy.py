"""The runbook's table of contents: each line names one thing that the host must be.

Order: what the API loads at its start comes before its restart; npm first of all, for a restart without its packages
takes the site down. The database comes before the code that reads the new columns.
"""

from pyinfra.context import host

import credentials
from facts.look import Wanted
from operations import dotenv, migration, nginx, npm, pm2, preflight, source, verification
from settings import Settings

wanted = Wanted(Settings.load(host.data.dict()), credentials.of_operator())
preflight.check(host, wanted)  # a host that cannot be read or lacks something stops here, with nothing changed

npm.packages(wanted=wanted, name="npm packages")
migration.applied(wanted=wanted, name="Database migration")
dotenv.secrets(wanted=wanted, name="Secrets in .env")
source.blocks(wanted=wanted, name="Application source")
nginx.site(wanted=wanted, name="nginx site")
nginx.current(wanted=wanted, name="nginx reload")
pm2.current(wanted=wanted, name="API restart")
verification.passes(wanted=wanted, name="Verification")
