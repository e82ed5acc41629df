"""The marketplace migration: once, whole or not at all, entered in the ledger."""

from collections.abc import Generator, Mapping
from pathlib import Path

from pyinfra.api.operation import operation
from pyinfra.context import host

import remote.migration
from channel import Channel, Step
from facts.look import ask
from remote.readings import Applied
from rules import COLUMNS, MIGRATION
from settings import BadInput

OWN_COPY = Path(__file__).parent.parent / "files/opt/ai-admin/migrations" / MIGRATION


def check(now: Applied, name: str) -> None:
    """Raises BadInput where the database of the host `name` is not the application's."""
    if not now["applied"] and not now["companies"]:
        raise BadInput(
            f"migration: the database of {name} has no table `companies`, so it is not the application's; "
            "is that one elsewhere? set DATABASE_URL"
        )


@operation()
def applied(
    app_dir: str, database: Mapping[str, str] | None, lock_timeout: int, statement_timeout: int
) -> Generator[Step[...]]:
    """`database` holds libpq's keywords; None is the host's own PostgreSQL. Timeouts are seconds."""
    now = ask(host, remote.migration.read, app_dir=app_dir, database=database, name=MIGRATION, columns=COLUMNS)
    if now["applied"]:
        if now["file"] and now["file"] != now["applied"]:
            host.log(f"  migration: {MIGRATION} was changed since it was applied; it is not run again")
        host.noop("migration: in the ledger")
        return
    check(now, host.name)
    adopted = now["columns"] == len(COLUMNS)
    what = "was run by hand; entered in the ledger as adopted"
    if not adopted:
        what = "(of the application)" if now["file"] else "(our copy)"
    Channel.of(host).say([f"migration: {MIGRATION} {what}"])
    yield Step(
        remote.migration.migrate,
        app_dir=app_dir,
        database=database,
        name=MIGRATION,
        sql=None if now["file"] else OWN_COPY.read_text(encoding="utf-8"),
        expected=now["file"],
        adopted=adopted,
        lock_timeout=lock_timeout,
        statement_timeout=statement_timeout,
    )
