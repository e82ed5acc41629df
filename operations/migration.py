"""The marketplace migration: once, whole or not at all, entered in the ledger."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from pyinfra.api.operation import operation
from pyinfra.context import host

from facts.look import Wanted, look
from facts.migration import COLUMNS, NAME, Migration
from operations.step import Step, say
from settings import BadInput

OWN_COPY = Path(__file__).parent.parent / "files/opt/ai-admin/migrations" / NAME


def check(now: Migration, name: str) -> None:
    """Raises BadInput where the database of the host `name` is not the application's."""
    if not now.applied and not now.companies:
        raise BadInput(
            f"migration: the database of {name} has no table `companies`, so it is not the application's; "
            "is that one elsewhere? set DATABASE_URL"
        )


@operation()
def applied(wanted: Wanted) -> Generator[Step]:
    now = look(host, wanted).migration
    if now.applied:
        if now.file and now.file != now.applied:
            host.log(f"  migration: {NAME} was changed since it was applied; it is not run again")
        host.noop("migration: in the ledger")
        return
    check(now, host.name)
    adopted = now.columns == len(COLUMNS)
    if adopted:
        say(host, [f"migration: {NAME} was run by hand; entered in the ledger as adopted"])
    else:
        say(host, [f"migration: {NAME} ({'of the application' if now.file else 'our copy'})"])
    sql = None if now.file else OWN_COPY.read_text(encoding="utf-8")
    yield Step("migration", "migrate", wanted, sql=sql, expected=now.file, adopted=adopted)
