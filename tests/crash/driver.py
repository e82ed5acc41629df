"""Runs one function of `remote` in a folder: `driver.py FOLDER CALL`. The work begins after the call of getppid().

What is written below / on a host is written below FOLDER here. CALL is JSON: the function's name, and its input.
"""

import importlib
import json
import os
import sys

from remote import Failure, backups, services

folder, (function, arguments) = sys.argv[1], json.loads(sys.argv[2])
backups.BACKUPS, services.STATE = f"{folder}/backups", f"{folder}/state"
os.environ["PM2_HOME"] = f"{folder}/pm2"
module, _, name = function.rpartition(".")
call = getattr(importlib.import_module(module), name)
os.getppid()
try:
    call("20261123T000000Z", **arguments)
except (Failure, OSError) as error:
    print(error, file=sys.stderr)
    sys.exit(1)
