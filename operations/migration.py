"""The marketplace migration: all that the application's file makes is there, and can be used by the application."""

from collections.abc import Generator, Mapping, Sequence
from typing import NamedTuple

from pglast import ast
from pyinfra.api.operation import operation
from pyinfra.context import host

import remote.migration
from channel import Channel, Step
from facts.look import ask
from operations.statements import Statement, Thing, statements
from remote.files import content, sha256
from remote.migration import identifier, literal
from remote.readings import Applied, Relation
from rules import MIGRATION, MIGRATION_COPY
from settings import BadInput

CHANGED = f"{MIGRATION} has changed since it was applied, and all that it makes is there"
LARGE = 100_000  # rows; above, to lock a table while all of it is read takes longer than a request can wait

# Types that take each other's values: a column of one is as good as one of another.
ALIKE = [
    {"text", "varchar", "bpchar"},
    {"int2", "int4", "int8"},
    {"numeric", "float4", "float8"},
    {"timestamp", "timestamptz"},
    {"json", "jsonb"},
]

GRANT = """DO $grant$ DECLARE each regclass; BEGIN
  FOR each IN SELECT objid FROM pg_depend JOIN pg_class ON oid = objid AND relkind = 'S'
    WHERE refobjid = {}::regclass AND deptype = 'a'
  LOOP EXECUTE 'GRANT USAGE, SELECT ON SEQUENCE ' || each || {}; END LOOP;
END $grant$"""  # of a table's serial columns


class Plan(NamedTuple):
    """What to run in one transaction, what after it, and whether to enter that in the ledger; `lines` tell of it."""

    lines: list[str]
    statements: list[str]
    concurrently: list[str]
    enter: bool
    adopted: bool


def _find(now: Applied, name: str) -> Relation | None:
    schema, _, plain = name.rpartition(".")
    found = now["relations"].get(name) or now["relations"].get(plain)
    return found if found and schema in ("", found["schema"]) else None


def _is_there(thing: Thing, now: Applied) -> bool:
    """Raises BadInput for a column of a type that cannot hold what it must."""
    if not thing.relation:
        return thing.name in now["functions" if thing.kind == "function" else "types"]
    relation = _find(now, thing.relation)
    if relation is None or thing.kind == "table":
        return relation is not None
    if thing.kind == "index":
        return relation["indexes"].get(thing.name, False)
    if thing.kind != "column":
        return thing.name in relation["triggers" if thing.kind == "trigger" else "constraints"]
    found, category = relation["columns"].get(thing.name, ("", ""))
    alike = found == thing.type or any({found, thing.type} <= each for each in ALIKE)
    if found and not alike and not (category == "S" and thing.type in ALIKE[0]):
        raise BadInput(
            f"migration: {thing} is {found} in the database and must be {thing.type}; its values are not ours to "
            f"convert: ALTER TABLE {thing.relation} ALTER COLUMN {thing.name} TYPE {thing.type} USING …"
        )
    return bool(found)


def plan(now: Applied) -> Plan:
    """What lacks, and how it is made. Raises BadInput where it cannot be."""
    file = statements(MIGRATION_COPY.read_text(encoding="utf-8") if now["file"] is None else now["file"])
    there = {thing: _is_there(thing, now) for statement in file for thing in statement.things}
    gone = [thing for thing in there if not there[thing]]
    fresh = not any(there[thing] for statement in file if not statement.repeats() for thing in statement.things)
    # to run again what is there needs the owner's rights, which a role may lack
    may_repeat = now["keeps"] and not any(_owner(thing, now) for thing in there)
    is_new = fresh and not now["applied"] and bool(gone or may_repeat)
    is_changed = now["file"] is not None and now["applied"] not in (None, sha256(content(now["file"])))
    is_told = now["keeps"] and not (gone or is_new) and (is_changed or not now["applied"])
    untold = [statement for statement in file if is_told and statement.leaves_nothing()]
    if gone:
        _require_rights(gone, now)
    run, lines = [], _said(now, gone, is_new, bool(untold))
    lines += [f"{statement} leaves nothing to look for, and is not run: see that it has been" for statement in untold]
    for statement in file if gone or is_new else ():
        missing = [thing for thing in statement.things if not there[thing]]
        is_run = fresh or statement.repeats() or statement.things[:1] == missing[:1] != []
        is_made = fresh or (is_run and isinstance(statement.node, ast.CreateStmt))  # with all its columns
        for thing in missing if not is_made else ():
            if thing.alone and _find(now, thing.relation):
                run.append(statement._replace(sql=thing.alone))
        if is_run:
            run.append(statement)
        elif not statement.things:
            lines.append(f"{statement} is not run again: whether it ran before is not known")
    after = {id(statement): _afterwards(statement, now) for statement in run}
    for statement in run:
        if rows := _rows(statement, now) if statement.locks_long() else 0:
            how = "does not lock" if after[id(statement)] else "locks"
            lines.append(f"{statement} {how} {statement.table} while it reads or writes all its rows (about {rows:,})")
    granted, grants = _grants(file, now)
    return Plan(
        [f"migration: {line}" for line in [*lines, *granted]],
        [*(statement.sql for statement in run if not after[id(statement)]), *grants],
        [sql for each in after.values() for sql in each],
        enter=now["keeps"] and (bool(gone or untold) or now["applied"] is None),
        adopted=not (run or now["applied"]),
    )


def _owner(thing: Thing, now: Applied) -> str:
    """The owner of its relation, where the role that migrates may not act as that owner."""
    found = _find(now, thing.relation) if thing.relation else None
    return found["owner"] if found else ""


def _require_rights(gone: Sequence[Thing], now: Applied) -> None:
    """Raises BadInput where the role that migrates may not make what lacks: its step comes after others."""
    for thing in gone:
        if owner := _owner(thing, now):
            raise BadInput(
                f"migration: {thing} lacks, and {thing.relation} belongs to {owner}, as whom the role in DATABASE_URL "
                f"may not act: name {owner} there, or a superuser"
            )
        if not now["creates"] and thing.kind not in ("column", "constraint", "trigger"):
            raise BadInput(
                f"migration: {thing} lacks, and the role in DATABASE_URL may not create it: grant it CREATE on the "
                "schema (GRANT CREATE ON SCHEMA public TO …), or name a superuser there"
            )


def _said(now: Applied, gone: list[Thing], is_new: bool, is_told: bool) -> list[str]:
    if is_new:
        return [f"{MIGRATION} ({'our copy' if now['file'] is None else 'of the application'})"]
    if not gone:
        if is_told and now["applied"]:
            return [CHANGED]
        adopts = now["keeps"] and not now["applied"]
        return [f"{MIGRATION} was run by hand; entered in the ledger as adopted"] if adopts else []
    how = "is in the ledger" if now["applied"] else "was only partly applied"
    lacking = ", ".join(str(thing) for thing in gone if thing.kind != "column" or _find(now, thing.relation))
    return [f"{MIGRATION} {how}, but the database lacks {lacking}"]


def _rows(statement: Statement, now: Applied) -> int:
    """How many rows its table has; 0 where few."""
    found = _find(now, statement.table)
    return found["rows"] if found and found["rows"] > LARGE else 0


def _afterwards(statement: Statement, now: Applied) -> list[str]:
    """For an index that the file wants CONCURRENTLY, one of a large table, one that a killed run left half built."""
    found, node = _find(now, statement.table), statement.node
    if not isinstance(node, ast.IndexStmt):
        return []
    is_broken = found and node.idxname in found["indexes"]
    drop = [f"DROP INDEX CONCURRENTLY {identifier(found['schema'], node.idxname)}"] if found and is_broken else []
    return [*drop, statement.concurrently()] if drop or node.concurrent or _rows(statement, now) else []


def _grants(file: Sequence[Statement], now: Applied) -> tuple[list[str], list[str]]:
    """For the roles that may not use a table of the file's: a line that says so, and the statements."""
    said: dict[str, list[str]] = {}
    grants = []
    made = [thing for each in file if isinstance(each.node, (ast.CreateStmt, ast.RenameStmt)) for thing in each.things]
    for table in [thing.name for thing in made if thing.kind == "table"]:
        found = _find(now, table)
        for role in now["roles"] if found is None else () if found["owner"] else found["denied"]:
            said.setdefault(role, []).append(table)
            name, to = identifier(*table.split(".")), identifier(role)
            grants += [
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {to}",
                GRANT.format(literal(name), literal(f" TO {to}")),
            ]
    return [f"{role} gets the rights to use {', '.join(tables)}" for role, tables in said.items()], grants


def check(now: Applied, name: str, pooled: bool) -> Plan:
    """The plan. Raises BadInput where the database of the host `name` is not the application's, or the file cannot be
    run, there or through a pooler that keeps no session."""
    if "companies" not in now["relations"]:
        named = f"the application's is {now['elsewhere']}:"
        is_it = named if now["elsewhere"] else "if the application's is elsewhere,"
        raise BadInput(
            f"migration: the database of {name} has no table `companies`, so it is not the application's; "
            f"{is_it} set DATABASE_URL"
        )
    todo = plan(now)
    if pooled and todo.concurrently:
        raise BadInput(
            f"migration: {todo.concurrently[-1]} cannot be run through DATABASE_URL, which names a transaction pooler; "
            "use the database's direct address, or its session pooler (Supabase: port 5432)"
        )
    return todo


@operation()
def applied(
    app_dir: str, database: Mapping[str, str] | None, pooled: bool, lock_timeout: int, statement_timeout: int
) -> Generator[Step[...]]:
    """`database` holds libpq's keywords; None is the host's own PostgreSQL. `pooled`: no session outlives a
    transaction there. Timeouts are seconds."""
    own = MIGRATION_COPY.read_text(encoding="utf-8")
    now = ask(host, remote.migration.read, app_dir=app_dir, database=database, name=MIGRATION, own=own)
    todo = check(now, host.name, pooled)
    if now["elsewhere"]:
        host.log(
            f"  migration: the application's own database is {now['elsewhere']}, and this one is the server's; "
            "to migrate that one, set DATABASE_URL"
        )
    expected = None if now["file"] is None else sha256(content(now["file"]))
    if not todo.lines:
        if now["applied"] and expected not in (None, now["applied"]):
            host.log(f"  migration: {CHANGED}")
        host.noop("migration: all is there")
        return
    Channel.of(host).say(todo.lines)
    todo_sql = "".join(f"{statement.strip()};\n" for statement in [*todo.statements, *todo.concurrently])
    Channel.of(host).diff(MIGRATION, b"", todo_sql.encode())
    yield Step(
        remote.migration.migrate,
        app_dir=app_dir,
        database=database,
        name=MIGRATION,
        expected=expected,
        search_path=now["search_path"],
        statements=todo.statements,
        concurrently=todo.concurrently,
        seen=now["applied"],
        enter=(expected or sha256(content(own))) if todo.enter else None,
        adopted=todo.adopted,
        lock_timeout=lock_timeout,
        statement_timeout=statement_timeout,
    )
