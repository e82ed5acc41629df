"""The requirements' table of ten components, made of the results of the checks."""

from __future__ import annotations

import os
import shutil
import textwrap
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TextIO

COMPONENTS = {
    "endpoints": "Endpoints",
    "tls": "HTTPS/SSL",
    "html": "HTML page",
    "websocket": "WebSocket server",
    "partner_token": "Partner Token",
    "app_id": "Application ID",
    "jwt_secret": "JWT Secret",
    "database": "Database",
    "nginx": "Nginx WebSocket",
    "baileys": "Baileys integration",
}


class Status(StrEnum):
    READY = "ready"
    PENDING = "pending"
    FAILING = "failing"
    UNCHECKED = "not checked"


_SIGN = {Status.READY: "✓", Status.PENDING: "…", Status.FAILING: "✗", Status.UNCHECKED: "?"}
_COLOUR = {Status.READY: "32", Status.PENDING: "33", Status.FAILING: "31", Status.UNCHECKED: "31"}


@dataclass
class Row:
    """One component. `evidence` is what was seen, `actions` what to type; the worst check decides."""

    status: Status = Status.UNCHECKED
    evidence: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    checks: int = 0

    def add(self, status: Status, evidence: str, action: str = "") -> None:
        order = (Status.UNCHECKED, Status.READY, Status.PENDING, Status.FAILING)
        worse = order.index(status) > order.index(self.status)
        self.checks += 1
        if worse:
            self.status, self.evidence, self.actions = status, [], []
        if worse or status == self.status:
            self.evidence.append(evidence)
            if action and action not in self.actions:
                self.actions.append(action)


class Table:
    def __init__(self, host: str) -> None:
        self.host = host
        self.rows = {component: Row() for component in COMPONENTS}

    @property
    def exit_code(self) -> int:
        """0 all ready, 2 only tokens pending, 1 something is broken or was not checked."""
        statuses = {row.status for row in self.rows.values()}
        if statuses & {Status.FAILING, Status.UNCHECKED}:
            return 1
        return 2 if Status.PENDING in statuses else 0

    def print(self, out: TextIO) -> None:
        colour = out.isatty() and "NO_COLOR" not in os.environ
        width = max(60, min(shutil.get_terminal_size().columns, 120)) if out.isatty() else 120
        checks = sum(row.checks for row in self.rows.values())
        print(f"\n{self.host}: {checks} checks", file=out)
        for component, row in self.rows.items():
            evidence = row.evidence[0] if row.status is Status.READY else "; ".join(row.evidence)
            start = f"  {_SIGN[row.status]} {COMPONENTS[component]:<20} {row.status:<11} "
            room = width - len(start)
            lines = textwrap.wrap(evidence, room) or [""]
            head = f"\033[{_COLOUR[row.status]}m{start}\033[0m" if colour else start
            print(head + lines[0], file=out)
            for line in lines[1:]:
                print(" " * len(start) + line, file=out)
            for action in row.actions:
                wrapped = textwrap.wrap(action, room - 2)
                print(" " * len(start) + "→ " + wrapped[0], file=out)
                for line in wrapped[1:]:
                    print(" " * len(start) + "  " + line, file=out)
        count = {status: sum(row.status is status for row in self.rows.values()) for status in Status}
        print(f"\n{', '.join(f'{number} {status}' for status, number in count.items() if number)}", file=out)
