"""The marketplace migration: all that the application's file makes is there, and can be used by the application.

The file is read with PostgreSQL's own grammar (pglast 8.8). What each of its statements makes is compared with what the
database holds, so that a migration which was half applied, or lost a part later, is completed.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from pglast import ast, parse_sql
from pglast.enums import AlterTableType, ConstrType, ObjectType
from pglast.parser import ParseError
from pglast.stream import RawStream
from pyinfra.api.operation import operation
from pyinfra.context import host

import remote.migration
from channel import Channel, Step
from facts.look import ask
from remote.files import content, sha256
from remote.migration import literal
from remote.readings import Applied, Relation
from rules import MIGRATION, MIGRATION_COPY
from settings import BadInput

LARGE = 100_000  # rows; above, to lock a table while all of it is read takes longer than a request can wait

# Types that take each other's values: a column of one is as good as one of another.
ALIKE = [
    {"text", "varchar", "bpchar"},
    {"int2", "int4", "int8"},
    {"numeric", "float4", "float8"},
    {"timestamp", "timestamptz"},
    {"json", "jsonb"},
]
SERIAL = {"smallserial": "int2", "serial": "int4", "bigserial": "int8"}
UNNAMED = AlterTableType.AT_AddConstraint  # with a name it makes a thing
OURS = ("lock_timeout", "statement_timeout")
SHORT = 80  # characters

GRANT = """DO $grant$ DECLARE each regclass; BEGIN
  FOR each IN SELECT objid FROM pg_depend JOIN pg_class ON oid = objid AND relkind = 'S'
    WHERE refobjid = {}::regclass AND deptype = 'a'
  LOOP EXECUTE 'GRANT USAGE, SELECT ON SEQUENCE ' || each || {}; END LOOP;
END $grant$"""  # of a table's serial columns


class Thing(NamedTuple):
    """`kind`: table, column, index, trigger, constraint, function or type. `type`: a column's, as pg_type has it.
    `alone`: for a column of a new table, the statement that makes it where the table is there."""

    kind: str
    relation: str
    name: str
    type: str = ""
    alone: str = ""

    def __str__(self) -> str:
        return f"{self.relation}.{self.name}" if self.kind == "column" else f"{self.kind} {self.name}"


class Statement(NamedTuple):
    """`things`: what it makes. `repeats`: it may run once more, and so it does when only a part lacks."""

    sql: str
    line: int
    node: ast.Node
    things: list[Thing]
    repeats: bool


class Plan(NamedTuple):
    """What to run in one transaction, what after it, and whether to enter that in the ledger; `lines` tell of it."""

    lines: list[str]
    statements: list[str]
    concurrently: list[str]
    enter: bool
    adopted: bool


@cache
def statements(text: str) -> tuple[Statement, ...]:
    """Of the file, in order; an ALTER TABLE with several parts is one for each. Raises BadInput."""
    text = text.removeprefix("\ufeff")
    try:
        if "\0" in text:
            raise UnicodeError
        found = parse_sql(text)
    except UnicodeError:
        raise BadInput(f"migrations/{MIGRATION} is not UTF-8 text") from None
    except ParseError as error:
        why, place = error.args[0], len(text) if error.args[1] is None else error.args[1]
        if text[place : place + 1] == "\\":
            why = f"{text[place:].split()[0]} is a command of psql, not SQL"
        raise _refused(text, place, why) from None
    return tuple(statement for raw in found for statement in _statements(text, raw))


def _refused(text: str, place: int, why: str) -> BadInput:
    return BadInput(f"migrations/{MIGRATION} line {_line(text, place)}: {why}; take it out, or correct it")


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def _statements(text: str, raw: ast.RawStmt) -> Iterator[Statement]:
    node, place = raw.stmt, raw.stmt_location
    sql = text[place : place + raw.stmt_len if raw.stmt_len else None]
    if isinstance(node, ast.TransactionStmt):
        raise _refused(text, place, f"{sql.split()[0].upper()}: we run the whole file in one transaction of our own")
    if isinstance(node, ast.CopyStmt) and node.filename is None:
        raise _refused(text, place, "COPY has no input here")
    if isinstance(node, ast.VariableSetStmt) and node.name in OURS:
        raise _refused(text, place, f"{node.name} is set by group_data")
    if isinstance(node, ast.AlterTableStmt) and len(node.cmds) > 1:
        for part in node.cmds:
            one = ast.AlterTableStmt(node.relation, (part,), node.objtype, node.missing_ok)
            yield _statement(RawStream()(one), one, _line(text, place))
    else:
        yield _statement(sql, node, _line(text, place))


def _statement(sql: str, node: ast.Node, line: int) -> Statement:
    things = list(_things(node))
    return Statement(sql, line, node, things, _repeats(node, things))


def _things(node: ast.Node) -> Iterator[Thing]:
    match node:
        case ast.CreateStmt(relation=relation):
            yield Thing("table", _name(relation), _name(relation))
            for each in node.tableElts or ():
                if isinstance(each, ast.ColumnDef):
                    add = ast.AlterTableCmd(AlterTableType.AT_AddColumn, def_=each)
                    alone = RawStream()(ast.AlterTableStmt(relation, (add,), ObjectType.OBJECT_TABLE))
                    yield Thing("column", _name(relation), each.colname, _type(each.typeName), alone)
        case ast.AlterTableStmt(relation=relation, cmds=(ast.AlterTableCmd(def_=ast.ColumnDef() as column) as part,)):
            if part.subtype == AlterTableType.AT_AddColumn:
                yield Thing("column", _name(relation), column.colname, _type(column.typeName))
        case ast.AlterTableStmt(relation=relation, cmds=(ast.AlterTableCmd(def_=ast.Constraint(conname=str(name))),)):
            yield Thing("constraint", _name(relation), name)
        case ast.IndexStmt(relation=relation, idxname=str(name)):
            yield Thing("index", _name(relation), name)
        case ast.CreateTrigStmt(relation=relation, trigname=name):
            yield Thing("trigger", _name(relation), name)
        case ast.CreateFunctionStmt(funcname=names):
            yield Thing("function", "", names[-1].sval)
        case ast.CreateEnumStmt(typeName=names) | ast.CreateDomainStmt(domainname=names):
            yield Thing("type", "", names[-1].sval)
        case ast.CompositeTypeStmt(typevar=relation):
            yield Thing("type", "", relation.relname)
        case ast.ViewStmt(view=relation) | ast.CreateSeqStmt(sequence=relation):
            yield Thing("table", _name(relation), _name(relation))


def _name(relation: ast.RangeVar) -> str:
    return f"{relation.schemaname}.{relation.relname}" if relation.schemaname else relation.relname


def _type(type_name: ast.TypeName) -> str:
    name: str = type_name.names[-1].sval
    return ("_" if type_name.arrayBounds else "") + SERIAL.get(name, name)


def _repeats(node: ast.Node, things: list[Thing]) -> bool:
    """What makes a thing is run where that lacks. A DROP never is: it made room for what may be there by now."""
    if things:
        return bool(getattr(node, "replace", False))
    if isinstance(node, ast.AlterTableStmt):
        return node.cmds[0].subtype not in (AlterTableType.AT_DropColumn, AlterTableType.AT_DropConstraint, UNNAMED)
    return isinstance(node, (ast.CommentStmt, ast.GrantStmt)) or bool(getattr(node, "if_not_exists", False))


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
    fresh = not any(there[thing] for statement in file if not statement.repeats for thing in statement.things)
    is_new = fresh and not now["applied"]
    run, lines = [], _said(now, gone, is_new)
    for statement in file if gone or is_new else ():
        missing = [thing for thing in statement.things if not there[thing]]
        if fresh or statement.repeats or statement.things[:1] == missing[:1] != []:
            run.append(statement)
        elif not statement.things:
            lines.append(f"{_short(statement)} is not run again: whether it ran before is not known")
        run += [statement._replace(sql=thing.alone) for thing in missing if thing.alone and statement not in run]
    after = [statement for statement in run if _is_index_for_later(statement, now)]
    for statement in run:
        table, rows = _large(statement.node, now)
        if statement in after and rows:
            lines.append(f"{statement.things[0]} is built while {table} is written to: it has about {rows:,} rows")
        elif rows and _locks_long(statement.node):
            lines.append(f"{_short(statement)} locks {table} until all of its about {rows:,} rows are read or written")
    granted, grants = _grants(file, now)
    return Plan(
        [f"migration: {line}" for line in [*lines, *granted]],
        [*(statement.sql for statement in run if statement not in after), *grants],
        [sql for statement in after for sql in _concurrently(statement, now)],
        enter=bool(gone) or now["applied"] is None,
        adopted=not run,
    )


def _said(now: Applied, gone: list[Thing], is_new: bool) -> list[str]:
    if is_new:
        return [f"{MIGRATION} ({'our copy' if now['file'] is None else 'of the application'})"]
    if not gone:
        return [] if now["applied"] else [f"{MIGRATION} was run by hand; entered in the ledger as adopted"]
    how = "is in the ledger" if now["applied"] else "was half applied"
    lacking = ", ".join(str(thing) for thing in gone if thing.kind != "column" or _find(now, thing.relation))
    return [f"{MIGRATION} {how}, but the database lacks {lacking}"]


def _short(statement: Statement) -> str:
    words = " ".join(statement.sql.split())
    return f"line {statement.line} ({words if len(words) < SHORT else words[: SHORT - 1] + '…'})"


def _large(node: ast.Node, now: Applied) -> tuple[str, int]:
    """The table that the statement is about and its number of rows; 0 where those are few."""
    relation: ast.RangeVar = getattr(node, "relation", None)
    found = _find(now, _name(relation)) if isinstance(relation, ast.RangeVar) else None
    return ("", 0) if not found or found["rows"] <= LARGE else (relation.relname, found["rows"])


def _locks_long(node: ast.Node) -> bool:
    """Does PostgreSQL 17 read or write the whole table under its lock?"""
    if isinstance(node, ast.IndexStmt):
        return True
    part = node.cmds[0] if isinstance(node, ast.AlterTableStmt) else ast.AlterTableCmd()
    if isinstance(part.def_, ast.Constraint):
        return not part.def_.skip_validation and not part.def_.indexname
    if part.subtype == AlterTableType.AT_AddColumn:
        return part.def_.typeName.names[-1].sval in SERIAL or any(map(_reads_all, part.def_.constraints or ()))
    return part.subtype in (AlterTableType.AT_AlterColumnType, AlterTableType.AT_SetNotNull)


def _reads_all(constraint: ast.Constraint) -> bool:
    """Of a new column: one value for all rows, as `now()` is, needs no row to be touched (PostgreSQL 11 and later)."""
    if constraint.contype != ConstrType.CONSTR_DEFAULT:
        return constraint.contype not in (ConstrType.CONSTR_NULL, ConstrType.CONSTR_NOTNULL)
    value = constraint.raw_expr
    is_now = isinstance(value, ast.FuncCall) and value.funcname[-1].sval == "now"
    return not is_now and not isinstance(value, (ast.A_Const, ast.TypeCast, ast.SQLValueFunction))


def _is_index_for_later(statement: Statement, now: Applied) -> bool:
    """One that the file wants CONCURRENTLY, one of a large table, and one that a killed run left half built."""
    node = statement.node
    if not isinstance(node, ast.IndexStmt):
        return False
    found = _find(now, _name(node.relation))
    return node.concurrent or _large(node, now)[1] > 0 or bool(found and node.idxname in found["indexes"])


def _concurrently(statement: Statement, now: Applied) -> Iterator[str]:
    node = parse_sql(statement.sql)[0].stmt
    found = _find(now, _name(node.relation))
    if found and node.idxname in found["indexes"]:
        yield f"DROP INDEX CONCURRENTLY {_quoted(found['schema'], node.idxname)}"
    node.concurrent = True
    yield RawStream()(node)


def _grants(file: Sequence[Statement], now: Applied) -> tuple[list[str], list[str]]:
    """For the roles that may not use a table of the file's: a line that says so, and the statements."""
    said: dict[str, list[str]] = {}
    grants = []
    for table in [each.node.relation for each in file if isinstance(each.node, ast.CreateStmt)]:
        found = _find(now, _name(table))
        for role in now["roles"] if found is None else found["denied"]:
            said.setdefault(role, []).append(table.relname)
            name, to = _quoted(table.schemaname or "", table.relname), _quoted(role)
            grants += [
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {to}",
                GRANT.format(literal(name), literal(f" TO {to}")),
            ]
    return [f"{role} gets the rights to use {', '.join(tables)}" for role, tables in said.items()], grants


def _quoted(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names if name)


def check(now: Applied, name: str) -> None:
    """Raises BadInput where the database of the host `name` is not the application's, or the file cannot be run."""
    if "companies" not in now["relations"]:
        raise BadInput(
            f"migration: the database of {name} has no table `companies`, so it is not the application's; "
            "is that one elsewhere? set DATABASE_URL"
        )
    plan(now)


@operation()
def applied(
    app_dir: str, database: Mapping[str, str] | None, lock_timeout: int, statement_timeout: int
) -> Generator[Step[...]]:
    """`database` holds libpq's keywords; None is the host's own PostgreSQL. Timeouts are seconds."""
    own = MIGRATION_COPY.read_text(encoding="utf-8")
    now = ask(host, remote.migration.read, app_dir=app_dir, database=database, name=MIGRATION, own=own)
    check(now, host.name)
    todo = plan(now)
    expected = None if now["file"] is None else sha256(content(now["file"]))
    if not todo.lines:
        if expected and expected != now["applied"]:
            host.log(f"  migration: {MIGRATION} was changed since it was applied, and makes nothing new")
        host.noop("migration: all is there")
        return
    Channel.of(host).say(todo.lines)
    yield Step(
        remote.migration.migrate,
        app_dir=app_dir,
        database=database,
        name=MIGRATION,
        expected=expected,
        search_path=now["search_path"],
        statements=todo.statements,
        concurrently=todo.concurrently,
        enter=(expected or sha256(content(own))) if todo.enter else None,
        adopted=todo.adopted,
        lock_timeout=lock_timeout,
        statement_timeout=statement_timeout,
    )
