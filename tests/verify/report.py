"""bin/verify --html: the tables as one self-contained page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tests.verify.table import Status, command_of
from tests.verify.target import HERE


def page(tables: list[dict[str, Any]]) -> str:
    """With what is worst first."""
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    environment.globals["command_of"] = command_of
    worst_first = list(reversed(Status))
    tables = [
        {**table, "rows": sorted(table["rows"], key=lambda row: worst_first.index(row["status"]))} for table in tables
    ]
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return environment.get_template("report.html.j2").render(tables=tables, made=made)
