"""deploy.py with one step: for runs that are killed in its middle, some hundreds of times."""

from pyinfra.context import host

import credentials
from facts.look import Wanted
from operations import dotenv
from settings import Settings

dotenv.secrets(wanted=Wanted(Settings.load(host.data.dict()), credentials.of_operator()), name="Secrets in .env")
