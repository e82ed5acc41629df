"""Undo the last deploy, or `--data undo=<its UTC time>`: see `operations/rollback.py`."""

import sys
from pathlib import Path

from pyinfra.context import host

sys.path.insert(0, str(Path(__file__).parent))  # the run may begin in another folder

import terminal
from operations import rollback
from settings import Settings

terminal.attend()
settings = Settings.load(host.data.dict())

rollback.files(name="Rollback", undo=settings.undo, api=settings.api, lock_wait=settings.lock_wait)
