"""Undo the last deploy, or `--data undo=<its UTC time>`: see `operations/rollback.py`."""

from pyinfra.context import host

import credentials
from facts.look import Wanted
from operations import rollback
from settings import Settings

wanted = Wanted(Settings.load(host.data.dict()), credentials.of_operator())

rollback.files(wanted=wanted, name="Rollback")
