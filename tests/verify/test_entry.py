"""The entry route: would the database take what it writes for a salon? Tried, and rolled back."""

from __future__ import annotations

import json
import re
from typing import Any

from contract import Contract, Upsert
from rules import ROUTES
from tests.verify.plugin import Seen, Unfit, component, needs
from tests.verify.target import HERE, Target
from tests.verify.test_data import lacks, made_columns

CHECK, FOREIGN_KEY = "23514", "23503"  # check_violation, foreign_key_violation
OF_CHECK = """SELECT attname FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey)
WHERE conrelid = 'companies'::regclass AND conname = :'name';"""
LOCKED = "55P03"  # lock_not_available
HOLDER = """SELECT pid, round(extract(epoch FROM clock_timestamp() - xact_start))
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE relation = 'companies'::regclass AND granted AND mode IN ('ShareRowExclusiveLock', 'ExclusiveLock',
  'AccessExclusiveLock', 'ShareLock') AND pid <> pg_backend_pid() ORDER BY xact_start LIMIT 1;"""


@component("database", "{pm2} logs {app} --lines 50 --nostream")
def test_the_entry_can_write_its_salon(target: Target, contract: Contract, dotenv: dict[str, Any], seen: Seen) -> None:
    needs(lacks(target).startswith(("complete", "without ")), "the table companies cannot be read")
    upsert = contract.upsert
    if upsert is None:
        needs(False, f"the source does not show what {ROUTES} writes into companies")
        return
    names = {"columns": ",".join(upsert.columns), "key": ",".join(upsert.key), "role": dotenv["role"]}
    names["literals"] = json.dumps(upsert.literals)
    script = (HERE / "entry.sql").read_text(encoding="utf-8")
    said = target.sql(script, "-v ON_ERROR_STOP=1 -v VERBOSITY=verbose", **names)
    error = re.search(r"(?:ERROR|FATAL): +(\w{5}): (.*)", said)
    needs(error is not None or said.strip() == "", f"the insert could not be tried: {said[:150]}")
    takes = f"takes the {len(upsert.columns)} columns that the entry route writes"
    if error is None:
        seen(takes)
        return
    state, message = error[1], error[2].replace(",", ", ")
    if _wants_real_values(target, state, said, upsert):
        seen(f"{takes}, if their values are right: {message}")
        return
    if state == LOCKED:
        pid, _, seconds = (target.sql(HOLDER).splitlines() or ["|"])[0].partition("|")
        needs(pid, "a transaction held companies for 5 s, and has ended since")
        statement = f'{target.psql_by_hand} -c "SELECT pg_terminate_backend({pid})"'
        raise Unfit(f"the insert of {upsert.place} waits: a transaction has held companies {seconds} s", statement)
    columns = re.search(r"COLUMN NAME: +(\S+)", said)
    column = columns[1] if columns else ""
    comes = {f"companies.{each}" for each in column.split(",")} <= {*made_columns(target)}
    needs(state != "42703" or not comes, f"the migration makes {column.replace(',', ', ')}, and has not been applied")
    statement = _statement(state, column, upsert.key, dotenv["role"])
    raise Unfit(
        f"the insert of {upsert.place} fails, so no salon gets in: {message}",
        f'{target.psql_by_hand} -c "{statement}"' if statement else "ask the application's developers",
    )


def _wants_real_values(target: Target, state: str, said: str, upsert: Upsert) -> bool:
    """A foreign key, or a check of values that do not stand in the source: PostgreSQL 17 looks at them last."""
    if state != CHECK:
        return state == FOREIGN_KEY
    name = re.search(r"CONSTRAINT NAME: +(.+)", said)  # of a domain or another table: none of the columns is known
    columns = {*target.sql(OF_CHECK, name=name[1].strip()).split()} if name else set()
    return not columns or not columns <= upsert.literals.keys()


def _statement(state: str, column: str, key: tuple[str, ...], role: str) -> str:
    """What would mend it, by PostgreSQL's error code; empty where it is not ours to say."""
    on = "ALTER TABLE companies"
    if state == "42703" and column:  # undefined_column
        types = {each: "timestamptz" if each.endswith("_at") else "text" for each in column.split(",")}
        added = [f"ADD COLUMN IF NOT EXISTS {each} {type_}" for each, type_ in types.items()]
        return f"{on} {', '.join(added)}"
    if state == "23502":  # not_null_violation
        return f"{on} ALTER COLUMN {column} DROP NOT NULL"
    if state == "42P10":  # no unique constraint for ON CONFLICT
        return f"CREATE UNIQUE INDEX CONCURRENTLY ON companies ({', '.join(key)})"
    if state == "42501":  # insufficient_privilege
        sequence = f"; GRANT USAGE ON SEQUENCE {column} TO {role}" if column else ""
        return f"GRANT SELECT, INSERT, UPDATE ON companies TO {role}{sequence}"
    return ""
