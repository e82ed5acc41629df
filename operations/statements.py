"""A migration's file, statement by statement: what each makes, and for how long it locks a table.

Read with PostgreSQL's own grammar (pglast 8.8, that of PostgreSQL 18), which knows a COMMIT in any spelling, and no
command of psql's.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from pglast import ast, parse_sql
from pglast.enums import AlterTableType, ConstrType, ObjectType, VariableSetKind
from pglast.parser import ParseError
from pglast.stream import RawStream

from rules import MIGRATION
from settings import BadInput

SERIAL = {"smallserial": "int2", "serial": "int4", "bigserial": "int8", "serial2": "int2"}
SERIAL |= {"serial4": "int4", "serial8": "int8"}
TEMPORARY = (("t", None), ("p", "pg_temp"))  # relpersistence, schema: gone with the session, so nothing to look for
ONCE = (AlterTableType.AT_DropColumn, AlterTableType.AT_DropConstraint, AlterTableType.AT_AddConstraint)
PARTS = {
    AlterTableType.AT_DropColumn: "column",
    AlterTableType.AT_AlterColumnType: "column",
    AlterTableType.AT_DropConstraint: "constraint",
}
KINDS = {
    ObjectType.OBJECT_TABLE: "table",
    ObjectType.OBJECT_VIEW: "table",
    ObjectType.OBJECT_SEQUENCE: "table",
    ObjectType.OBJECT_COLUMN: "column",
    ObjectType.OBJECT_TABCONSTRAINT: "constraint",
    ObjectType.OBJECT_INDEX: "index",
    ObjectType.OBJECT_TRIGGER: "trigger",
    ObjectType.OBJECT_FUNCTION: "function",
    ObjectType.OBJECT_TYPE: "type",
    ObjectType.OBJECT_DOMAIN: "type",
}
OURS = ("lock_timeout", "statement_timeout")
SHORT = 80  # characters


class Thing(NamedTuple):
    """`kind`: table, column, index, trigger, constraint, function or type. `type`: a column's, as pg_type has it.
    `alone`: for a column of a new table, or one that is converted later, what makes it where the table is there."""

    kind: str
    relation: str
    name: str
    type: str = ""
    alone: str = ""

    def __str__(self) -> str:
        return f"{self.relation}.{self.name}" if self.kind == "column" else f"{self.kind} {self.name}"

    def is_one_of(self, kind: str, relation: str, name: str) -> bool:
        """Is it this one, or on this table? An empty `relation` is any."""
        if kind == "table" and _alike(self.relation, name):
            return True
        schema = self.relation.rpartition(".")[0] if kind == "index" else ""  # it is in that of its table
        own = f"{schema}.{self.name}" if schema else self.name
        return self.kind == kind and (not relation or _alike(self.relation, relation)) and _alike(own, name)


class Statement(NamedTuple):
    """`table`: which it is about; empty where that is none, or several. `things`: what it makes."""

    sql: str
    line: int
    node: ast.Node
    table: str
    things: list[Thing]

    def __str__(self) -> str:
        words = " ".join(self.sql.split())
        return f"line {self.line} ({words if len(words) < SHORT else words[: SHORT - 1] + '…'})"

    def repeats(self) -> bool:
        """May it run once more? What makes a thing need not; a DROP made room for what may be there by now."""
        node = self.node
        if self.things:
            return bool(getattr(node, "replace", False))
        if isinstance(node, ast.AlterTableStmt):  # of what makes a column, another statement has the thing by now
            part = node.cmds[0]
            return bool(part.missing_ok) if part.subtype == AlterTableType.AT_AddColumn else part.subtype not in ONCE
        safe = (ast.CommentStmt, ast.GrantStmt, ast.VariableSetStmt)
        return isinstance(node, safe) or bool(getattr(node, "if_not_exists", False))

    def leaves_nothing(self) -> bool:
        """Does it change what is there without making a thing, so that nothing tells whether it has run?"""
        node = self.node
        if isinstance(node, ast.AlterTableStmt) and not self.things:  # of what a later one renames, that has the thing
            return node.cmds[0].subtype not in (AlterTableType.AT_AddColumn, *ONCE)
        changes = (ast.UpdateStmt, ast.InsertStmt, ast.DeleteStmt, ast.MergeStmt, ast.TruncateStmt)
        return isinstance(node, (*changes, ast.DoStmt, ast.SelectStmt, ast.AlterEnumStmt))

    def locks_long(self) -> bool:
        """Does PostgreSQL 17 read or write the whole table under its lock?"""
        if isinstance(self.node, ast.IndexStmt):
            return not self.node.concurrent
        part = self.node.cmds[0] if isinstance(self.node, ast.AlterTableStmt) else ast.AlterTableCmd()
        if isinstance(part.def_, ast.Constraint):
            return not part.def_.skip_validation and not part.def_.indexname
        if part.subtype == AlterTableType.AT_AddColumn:
            return part.def_.typeName.names[-1].sval in SERIAL or any(map(_reads_all, part.def_.constraints or ()))
        return part.subtype in (AlterTableType.AT_AlterColumnType, AlterTableType.AT_SetNotNull)

    def concurrently(self) -> str:
        """SQL that builds the index without blocking; not in a transaction."""
        node = parse_sql(self.sql)[0].stmt
        node.concurrent = True
        return str(RawStream()(node))


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
    return _without_what_goes([statement for raw in found for statement in _statements(text, raw)])


def _without_what_goes(found: list[Statement]) -> tuple[Statement, ...]:
    """What a later statement drops is not looked for, and what one renames or converts only as it is after that."""
    for at, statement in enumerate(found):
        gone = [*_gone(statement.node, statement.table)]
        for before, each in enumerate(found[:at] if gone else ()):
            left = [thing for thing in each.things if any(thing.is_one_of(*what) for what in gone)]
            found[before] = each._replace(things=[thing for thing in each.things if thing not in left])
            statement.things.extend(new for thing in left for new in _became(statement.node, thing, each.sql))
    return tuple(found)


def _gone(node: ast.Node, table: str) -> Iterator[tuple[str, str, str]]:
    """Kind, relation and name of what it drops or changes."""
    match node:
        case ast.DropStmt(objects=objects, removeType=kind) if kind in KINDS:
            for each in objects:
                names = _names(each)
                parts = 1 if kind == ObjectType.OBJECT_TRIGGER else len(names)  # before a trigger's stands its table
                yield KINDS[kind], ".".join(names[:-parts]), ".".join(names[-parts:])
        case ast.AlterTableStmt(cmds=(ast.AlterTableCmd(subtype=kind, name=str(name)),)) if kind in PARTS:
            yield PARTS[kind], table, name
        case ast.RenameStmt(renameType=kind, subname=str(name)) if kind in KINDS:
            yield KINDS[kind], table, name
        case ast.RenameStmt(renameType=kind) | ast.AlterObjectSchemaStmt(objectType=kind) if kind in KINDS:
            yield KINDS[kind], "", table or ".".join(_names(node.object))


def _names(node: Any) -> list[str]:
    """Of a DROP's object: a list, a type, or a function with its arguments."""
    return [each.sval for each in getattr(node, "objname", None) or getattr(node, "names", None) or node]


def _became(node: ast.Node, thing: Thing, sql: str) -> Iterator[Thing]:
    """What the statement turns `thing`, made by `sql`, into."""
    match node:
        case ast.RenameStmt(renameType=kind, newname=name) if KINDS.get(kind) == thing.kind:
            schema = thing.name.rpartition(".")[0]
            name = f"{schema}.{name}" if schema else name
            yield thing._replace(name=name, relation=name if thing.kind == "table" else thing.relation, alone="")
        case ast.AlterTableStmt(cmds=(ast.AlterTableCmd(def_=ast.ColumnDef(typeName=ast.TypeName() as to)),)):
            yield thing._replace(type=_type(to), alone=thing.alone or sql)


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
    if isinstance(node, ast.VariableSetStmt) and node.kind == VariableSetKind.VAR_SET_VALUE and not node.is_local:
        node.is_local = True  # a pooler would hand the session on to others as we leave it
        sql = RawStream()(node)
    if isinstance(node, ast.AlterTableStmt) and len(node.cmds) > 1:
        for part in node.cmds:
            one = ast.AlterTableStmt(node.relation, (part,), node.objtype, node.missing_ok)
            yield _statement(RawStream()(one), one, _line(text, place))
    else:
        yield _statement(sql, node, _line(text, place))


def _statement(sql: str, node: ast.Node, line: int) -> Statement:
    relation = getattr(node, "relation", None)
    if isinstance(relation, ast.RangeVar) and (relation.relpersistence, relation.schemaname) in TEMPORARY:
        return Statement(sql, line, node, "", [])
    table = _name(relation) if isinstance(relation, ast.RangeVar) else ""
    return Statement(sql, line, node, table, list(_things(node, table)))


def _things(node: ast.Node, table: str) -> Iterator[Thing]:
    match node:
        case ast.CreateStmt(relation=relation):
            yield Thing("table", table, table)
            for each in node.tableElts or ():
                if isinstance(each, ast.ColumnDef):
                    add = ast.AlterTableCmd(AlterTableType.AT_AddColumn, def_=each)
                    alone = RawStream()(ast.AlterTableStmt(relation, (add,), ObjectType.OBJECT_TABLE))
                    yield Thing("column", table, each.colname, _type(each.typeName), alone)
        case ast.AlterTableStmt(cmds=(ast.AlterTableCmd(def_=ast.ColumnDef() as column) as part,)):
            if part.subtype == AlterTableType.AT_AddColumn:
                yield Thing("column", table, column.colname, _type(column.typeName))
        case ast.AlterTableStmt(cmds=(ast.AlterTableCmd(def_=ast.Constraint(conname=str(name))),)):
            yield Thing("constraint", table, name)
        case ast.IndexStmt(idxname=str(name)):
            yield Thing("index", table, name)
        case ast.CreateTrigStmt(trigname=name):
            yield Thing("trigger", table, name)
        case ast.CreateFunctionStmt(funcname=names):
            yield Thing("function", "", ".".join(_names(names)))
        case ast.CreateEnumStmt(typeName=names) | ast.CreateDomainStmt(domainname=names):
            yield Thing("type", "", ".".join(_names(names)))
        case ast.ViewStmt(view=relation) | ast.CreateSeqStmt(sequence=relation):
            yield Thing("table", _name(relation), _name(relation))


def _alike(one: str, other: str) -> bool:
    """The same name; one without a schema is public's."""
    return one.removeprefix("public.") == other.removeprefix("public.")


def _name(relation: ast.RangeVar) -> str:
    return f"{relation.schemaname}.{relation.relname}" if relation.schemaname else relation.relname


def _type(type_name: ast.TypeName) -> str:
    name: str = type_name.names[-1].sval
    return ("_" if type_name.arrayBounds else "") + SERIAL.get(name, name)


def _reads_all(constraint: ast.Constraint) -> bool:
    """Of a new column: one value for all rows, as `now()` is, needs no row to be touched (PostgreSQL 11 and later)."""
    if constraint.contype != ConstrType.CONSTR_DEFAULT:
        return constraint.contype not in (ConstrType.CONSTR_NULL, ConstrType.CONSTR_NOTNULL)
    value = constraint.raw_expr
    is_now = isinstance(value, ast.FuncCall) and value.funcname[-1].sval == "now"
    return not is_now and not isinstance(value, (ast.A_Const, ast.TypeCast, ast.SQLValueFunction))
