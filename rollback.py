"""Undo the last deploy, or `--data undo=<its UTC time>`: see `operations/rollback.py`."""

from pyinfra.context import host

from operations import rollback
from settings import Settings

settings = Settings.load(host.data.dict())

rollback.files(name="Rollback", undo=settings.undo, api=settings.api, lock_wait=settings.lock_wait)
