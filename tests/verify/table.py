"""The table of ten components that the requirements ask for, built from the results of the checks."""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TextIO

DEPLOY = "pyinfra inventory.py deploy.py"  # as the checks write it; whoever runs them may have another inventory
ON_THE_HOST = re.compile(
    r"(systemctl|nginx|pm2|chmod|chown|kill|certbot|update-ca-certificates|timedatectl|du|node|env|runuser|sed)\b"
)
IDLE = "by hand (deploy would change nothing): "
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
    """From best to worst. The worst check decides the status of its row."""

    READY = "ready"
    PENDING = "pending"
    UNCHECKED = "not checked"
    FAILING = "failing"


_ORDER = list(Status)
_SIGN = {Status.READY: "✓", Status.PENDING: "…", Status.FAILING: "✗", Status.UNCHECKED: "?"}
_COLOUR = {Status.READY: "32", Status.PENDING: "33", Status.FAILING: "31", Status.UNCHECKED: "35"}


@dataclass(frozen=True)
class Result:
    """Of one check: what was seen, and what to type if it is not ready; `otherwise`, where deploy would not help."""

    status: Status
    evidence: str
    action: str = ""
    name: str = ""
    otherwise: str = ""


def printable(text: str) -> str:
    """In one line, and without what a terminal would take for a command: it may come from the host."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


@dataclass
class Row:
    """One component."""

    results: list[Result] = field(default_factory=list)

    def add(self, status: Status, evidence: str, action: str = "", name: str = "", otherwise: str = "") -> None:
        self.results.append(Result(status, printable(evidence), printable(action), name, printable(otherwise)))

    @property
    def status(self) -> Status:
        return max((result.status for result in self.results), key=_ORDER.index, default=Status.UNCHECKED)

    @property
    def deciding(self) -> list[Result]:
        """The results that have the row's status, without repeated evidence."""
        found: dict[str, Result] = {}
        for result in self.results:
            if result.status is self.status and result.evidence:
                found.setdefault(result.evidence, result)
        return list(found.values())

    @property
    def evidence(self) -> list[str]:
        return [result.evidence for result in self.deciding]

    @property
    def actions(self) -> list[str]:
        return list(dict.fromkeys(result.action for result in self.deciding if result.action))

    @property
    def findings(self) -> dict[str, list[str]]:
        """What to type -> the causes that it fixes."""
        found: dict[str, list[str]] = {}
        for result in self.deciding:
            found.setdefault(result.action, []).append(result.evidence)
        return found

    @property
    def checks(self) -> int:
        return len(self.results)


@dataclass
class NextStep:
    """What to type, where, and which rows it is to put right. `place` is empty for what is no command."""

    command: str
    place: str
    rows: list[str] = field(default_factory=list)


def command_of(action: str, deploy: str) -> tuple[str, str, str]:
    """What a remedy says before the command in it, the command, which may be pasted, and what it says after it."""
    if deploy in action:
        return action.partition(deploy)
    if ON_THE_HOST.match(action):
        note = re.search(r" \([^()\"]*\)$", action)  # not what belongs to a statement of SQL
        return "", action[: note.start()] if note else action, note[0] if note else ""
    return action, "", ""


class Table:
    """`deploy` is the command that deploys to this host."""

    def __init__(self, host: str, deploy: str = DEPLOY) -> None:
        self.host = host
        self.deploy = deploy
        self.rows = {component: Row() for component in COMPONENTS}

    @property
    def checks(self) -> int:
        return sum(row.checks for row in self.rows.values())

    @property
    def exit_code(self) -> int:
        """0: all ready; 2: only tokens are pending; 1: something is broken or was not checked."""
        statuses = {result.status for row in self.rows.values() for result in row.results}
        statuses |= {row.status for row in self.rows.values()}
        if statuses & {Status.FAILING, Status.UNCHECKED}:
            return 1
        return 2 if Status.PENDING in statuses else 0

    def _is_deploy(self, result: Result) -> bool:
        return result.status is Status.FAILING and result.action.startswith(self.deploy)

    @property
    def wants_deploy(self) -> bool:
        return any(self._is_deploy(result) for row in self.rows.values() for result in row.results)

    def without_deploy(self) -> None:
        """Deploy would say that nothing is to be changed: so it is no remedy."""
        for row in self.rows.values():
            row.results = [
                replace(each, action=IDLE + each.otherwise) if self._is_deploy(each) else each for each in row.results
            ]

    @property
    def next_steps(self) -> list[NextStep]:
        """The few distinct things to do, in their order: what deploy may need, deploy, and what is for later."""
        before, deploy, after = range(3)
        found: dict[str, tuple[int, NextStep]] = {}
        for component, row in self.rows.items():
            has_deploy = any(self.deploy in action for action in row.actions)
            for action in row.actions:
                if action.startswith(self.deploy) and row.status is Status.FAILING:
                    order, step = deploy, NextStep(self.deploy, "on your laptop")
                else:
                    order = after if has_deploy else before
                    step = NextStep(action, "on the host" if ON_THE_HOST.match(action) else "")
                found.setdefault(step.command, (order, step))[1].rows.append(COMPONENTS[component])
        return [step for _, step in sorted(found.values(), key=lambda each: each[0])]

    @property
    def summary(self) -> str:
        """For example: `9 ready, 1 failing`."""
        count = {status: sum(row.status is status for row in self.rows.values()) for status in Status}
        return ", ".join(f"{number} {status}" for status, number in count.items() if number)

    def data(self) -> dict[str, Any]:
        """For --json and --html."""
        return {
            "host": self.host,
            "checks": self.checks,
            "exit_code": self.exit_code,
            "deploy": self.deploy,
            "summary": self.summary,
            "next": [vars(step) for step in self.next_steps],
            "rows": [
                {
                    "component": COMPONENTS[component],
                    "status": row.status,
                    "sign": _SIGN[row.status],
                    "evidence": row.evidence,
                    "actions": row.actions,
                    "findings": [{"causes": causes, "action": action} for action, causes in row.findings.items()],
                    "checks": [vars(result) for result in row.results],
                }
                for component, row in self.rows.items()
            ],
        }

    def print(self, out: TextIO) -> None:
        colour = out.isatty() and "NO_COLOR" not in os.environ
        is_cut = out.isatty()  # what is piped is read by somebody who can scroll
        width = max(60, min(shutil.get_terminal_size((100, 24)).columns, 120))
        print(f"\n{self.host}: {self.checks} checks", file=out)
        for component, row in self.rows.items():
            start = f"  {_SIGN[row.status]} {COMPONENTS[component]:<20} {row.status:<11} "
            head = f"\033[{_COLOUR[row.status]}m{start}\033[0m" if colour else start
            lines = row_lines(row, width - len(start), is_cut) or [""]
            print(head + lines[0], file=out)
            for line in lines[1:]:
                print(" " * len(start) + line, file=out)
        print(f"\n{self.summary}", file=out)
        for number, step in enumerate(self.next_steps, start=1):
            where = f"{step.place}, " if step.place else ""
            print(f"\n  {number}. {where}for {', '.join(dict.fromkeys(step.rows))}:", file=out)
            print(f"     {step.command}", file=out)


def row_lines(row: Row, width: int, is_cut: bool) -> list[str]:
    """For a ready row one line with the evidence; for any other the causes, each followed by what to type."""
    if row.status is Status.READY:
        text = "; ".join(row.evidence)
        return [textwrap.shorten(text, width, placeholder=" …") if is_cut else text]
    lines = []
    for action, causes in row.findings.items():
        for cause in causes:
            lines += textwrap.wrap(cause, width, break_on_hyphens=False)
        if action:
            lines.append(f"→ {action}")  # in one line: it is pasted
    return lines
