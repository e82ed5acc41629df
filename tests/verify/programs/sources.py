"""The application's source files that speak of the marketplace, whole, for contract.py."""

from __future__ import annotations

import json
import os
import re
import sys

asked = json.loads(sys.argv[1])
folder, mention = asked["folder"], re.compile(asked["mention"])
found: dict[str, str] = {}
for parent, _, files in os.walk(f"{folder}/src"):
    for name in files:
        path = os.path.join(parent, name)
        if re.search(r"\.[cm]?[jt]s$", name) and os.path.isfile(path) and os.path.getsize(path) < 500_000:
            with open(path, encoding="utf-8", errors="replace") as file:
                content = file.read()
            inner = os.path.relpath(path, folder)
            if inner == asked["session_pool"] or mention.search(content):
                found[inner] = content
print(json.dumps(found))
