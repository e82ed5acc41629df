"""What a migration's file makes, what of it lacks, and what is run then."""

from __future__ import annotations

import re
from typing import Any

import pytest

from operations.migration import Plan, check, plan
from operations.statements import statements
from remote.files import content, sha256
from remote.migration import elsewhere
from remote.readings import Applied, Relation
from rules import MIGRATION, MIGRATION_COPY
from settings import BadInput

OWN = MIGRATION_COPY.read_text(encoding="utf-8")
INDEX = "idx_companies_integration_status"


def database(file: str, have: str = "", **changes: Any) -> Applied:
    """One where `have`, a part of `file`, has run."""
    relations: dict[str, Relation] = {"companies": relation()}
    functions = []
    for thing in [thing for statement in statements(have) for thing in statement.things]:
        found = relations.setdefault(thing.relation or "companies", relation())
        if thing.kind == "function":
            functions.append(thing.name)
        elif thing.kind == "column":
            found["columns"][thing.name] = (thing.type, "X")
        elif thing.kind == "index":
            found["indexes"][thing.name] = True
        elif thing.kind != "table":
            found["triggers" if thing.kind == "trigger" else "constraints"].append(thing.name)
    found_all: Applied = {
        "file": file,
        "applied": None,
        "search_path": "public",
        "roles": [],
        "relations": relations,
        "functions": functions,
        "types": [],
        "elsewhere": "",
        "keeps": True,
        "creates": True,
    }
    return {**found_all, **changes}  # type: ignore[typeddict-item]  # as the caller gives them


def relation() -> Relation:
    columns = {"id": ("int4", "N"), "title": ("text", "S")}
    return Relation(
        schema="public", rows=20, columns=columns, indexes={}, triggers=[], constraints=[], denied=[], owner=""
    )


def test_all_of_it_is_what_is_needed() -> None:
    kinds = [thing.kind for statement in statements(OWN) for thing in statement.things if thing.relation != "companies"]
    columns = [thing.name for statement in statements(OWN) for thing in statement.things if thing.kind == "column"]
    assert len(columns) == 13 + 6 + 5
    assert sorted({*kinds}) == ["column", "function", "table", "trigger"]


def test_nothing_there_runs_the_file_as_it_is() -> None:
    todo = plan(database(OWN))
    assert [*todo.statements] == [statement.sql for statement in statements(OWN)]
    assert all(sql in OWN for sql in todo.statements)
    assert (todo.concurrently, todo.enter, todo.adopted) == ([], True, False)
    assert todo.lines == ["migration: add_marketplace_fields_to_companies.sql (of the application)"]


def test_what_is_temporary_is_not_looked_for() -> None:
    """It is gone with the session, and would be made again by each deploy."""
    file = f"{OWN}\nCREATE TEMP TABLE scratch (id integer);\nCREATE TABLE pg_temp.other (id integer);\n"
    todo = plan(database(file, OWN, applied=sha256(content(file))))
    assert not todo.statements, todo.lines


@pytest.mark.parametrize(
    ("later", "left"),
    [
        ("DROP TABLE t", []),
        ("DROP TABLE public.t, u", []),
        ("ALTER TABLE t SET SCHEMA b", []),
        ("DROP INDEX i; DROP TRIGGER g ON t", ["table t", "t.x", "t.y", "constraint c"]),
        ("ALTER TABLE public.t DROP COLUMN x, DROP CONSTRAINT c", ["table t", "t.y", "index i", "trigger g"]),
        ("ALTER TABLE t RENAME x TO z", ["table t", "t.y", "constraint c", "index i", "trigger g", "t.z"]),
        (
            "ALTER TABLE t RENAME CONSTRAINT c TO d",
            ["table t", "t.x", "t.y", "index i", "trigger g", "constraint d"],
        ),
        ("ALTER INDEX public.i RENAME TO j", ["table t", "t.x", "t.y", "constraint c", "trigger g", "index j"]),
        ("ALTER TABLE t RENAME TO u", ["table u"]),
        *(
            (line, ["table t", "t.x", "t.y", "constraint c", "index i", "trigger g"])
            for line in (
                *("DROP TRIGGER g ON b.t", "DROP TABLE b.t", "DROP INDEX b.i", "ALTER TABLE b.t DROP COLUMN x"),
                *("DROP EXTENSION citext", "DROP SCHEMA IF EXISTS b", "ALTER EXTENSION citext SET SCHEMA b"),
                *("DROP CAST (text AS int)", "DROP PUBLICATION p", "ALTER PUBLICATION p RENAME TO q"),
                *(
                    "DROP EVENT TRIGGER e",
                    "ALTER SERVER s RENAME TO r",
                    "DROP LANGUAGE plperl",
                    "DROP AGGREGATE a(int)",
                ),
            )
        ),
    ],
)
def test_what_the_file_itself_undoes_is_not_looked_for(later: str, left: list[str]) -> None:
    """Else each deploy would say that it lacks, and that of a column try to make it again."""
    made = """CREATE TABLE t (x int, y int); ALTER TABLE t ADD CONSTRAINT c UNIQUE (x); CREATE INDEX i ON t (x);
        CREATE TRIGGER g BEFORE UPDATE ON t EXECUTE FUNCTION f();"""
    found = [str(thing) for statement in statements(f"{made} {later};") for thing in statement.things]
    assert found == left


def test_a_type_that_the_file_changes_is_the_last_one() -> None:
    file = "ALTER TABLE companies ADD a int; ALTER TABLE companies ALTER COLUMN a TYPE text;"
    now = database(file)
    now["relations"]["companies"]["columns"]["a"] = ("text", "S")
    assert plan(now).adopted


def test_a_half_applied_file_that_converts_a_column() -> None:
    file = """ALTER TABLE companies ADD x text; CREATE INDEX i ON companies (x);
        ALTER TABLE companies ALTER COLUMN x TYPE varchar(64);"""
    now = database(file)
    now["relations"]["companies"]["columns"]["x"] = ("varchar", "S")
    assert plan(now).statements == ["CREATE INDEX i ON companies (x)"]
    now = database(f"{file} ALTER TABLE companies DROP COLUMN IF EXISTS old;", "CREATE INDEX i ON companies (x);")
    assert plan(now).statements[:1] == ["ALTER TABLE companies ADD x text"]


def test_a_column_that_is_converted_and_is_not_there_is_made_first() -> None:
    file = "CREATE TABLE IF NOT EXISTS t (id int, a text); ALTER TABLE t ALTER COLUMN a TYPE varchar(10);"
    old = database(file, "CREATE TABLE t (id int);")
    add, convert = "ALTER TABLE t ADD COLUMN a text", "ALTER TABLE t ALTER COLUMN a TYPE varchar(10)"
    assert [*plan(old).statements][:2] == [add, convert]
    assert add not in plan(database(file)).statements, "the table is made with it"


@pytest.mark.parametrize("made", ["CREATE TYPE {}e AS ENUM ('x')", "CREATE DOMAIN {}e AS text"])
def test_a_type_or_function_of_a_schema(made: str) -> None:
    file = f"{made.format('other.')}; CREATE FUNCTION other.f() RETURNS int LANGUAGE sql AS 'SELECT 1';"
    assert not plan(database(file, types=["other.e"], functions=["other.f"])).statements
    assert len(plan(database(file, types=["e", "public.e"], functions=["f", "public.f"])).statements) == 2
    renamed = f"{file} ALTER TYPE other.e RENAME TO g; ALTER FUNCTION other.f() RENAME TO h;"
    assert not plan(database(renamed, types=["other.g"], functions=["other.h"])).statements


def test_each_name_of_a_serial_is_an_integer_in_the_database() -> None:
    made = statements("CREATE TABLE t (a serial8, b serial4, c serial2, d bigserial, e serial, f smallserial);")
    types = [thing.type for statement in made for thing in statement.things if thing.kind == "column"]
    assert types == ["int8", "int4", "int2"] * 2


def test_all_there() -> None:
    assert plan(database(OWN, OWN, applied=sha256(content(OWN)))) == Plan([], [], [], enter=False, adopted=False)
    assert plan(database(OWN, OWN)).adopted and plan(database(OWN, OWN)).enter


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("COMMIT TRANSACTION;", "COMMIT: we run the whole file in one transaction of our own"),
        ("commit work;", "COMMIT: we"),
        ("SELECT 1; END;", "END: we"),
        ("ABORT;", "ABORT: we"),
        ("START TRANSACTION READ WRITE;", "START: we"),
        ("SAVEPOINT a;", "SAVEPOINT: we"),
        ("\\! ls", "\\! is a command of psql, not SQL"),
        ("\\i /etc/passwd", "\\i is a command of psql, not SQL"),
        ("\\copy companies to '/tmp/x'", "\\copy is a command of psql, not SQL"),
        ("COPY companies FROM stdin;", "COPY has no input here"),
        ("SET LOCAL lock_timeout = 0;", "lock_timeout is set by group_data"),
        ("ALTER TABEL companies ADD x int;", 'syntax error at or near "TABEL"'),
    ],
)
def test_refused_with_its_line(line: str, said: str) -> None:
    text = f"-- Миграция ✓\nALTER TABLE companies ADD COLUMN IF NOT EXISTS x int;\n\n{line}\n"
    with pytest.raises(BadInput) as refused:
        plan(database(text))
    assert f"migrations/add_marketplace_fields_to_companies.sql line 4: {said}" in str(refused.value)
    assert "take it out, or correct it" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["SELECT '\udcff'", "SELECT 1;\0 COMMIT;"])
def test_what_is_no_text(text: str) -> None:
    with pytest.raises(BadInput, match="is not UTF-8 text"):
        plan(database(text))


def test_words_that_only_look_like_control() -> None:
    text = """\ufeff-- \\! ls; COMMIT;
    COMMENT ON TABLE companies IS 'COMMIT; \\i x';
    CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN; RETURN 1; END; $$;"""
    assert len(plan(database(text)).statements) == 2


SEVERAL = """ALTER TABLE companies ADD COLUMN IF NOT EXISTS a varchar(50) DEFAULT 'п''x', ADD COLUMN b timestamptz,
  ALTER COLUMN title SET DEFAULT 'x';
DROP TRIGGER IF EXISTS t ON companies;
CREATE TRIGGER t BEFORE UPDATE ON companies FOR EACH ROW EXECUTE FUNCTION f();
UPDATE companies SET a = 'x';
CREATE OR REPLACE FUNCTION f() RETURNS trigger LANGUAGE sql AS 'x';"""


def test_of_a_half_applied_one_the_rest_is_run() -> None:
    """What makes nothing is run too where that does no harm; the trigger that is there is not dropped."""
    have = "ALTER TABLE companies ADD a text; CREATE TRIGGER t BEFORE UPDATE ON companies EXECUTE FUNCTION f();"
    unknown = "is not run again: whether it ran before is not known"
    todo = plan(database(SEVERAL, have))
    assert todo.statements == [
        "ALTER TABLE companies ADD COLUMN b timestamptz",
        "ALTER TABLE companies ALTER COLUMN title SET DEFAULT 'x'",
        "CREATE OR REPLACE FUNCTION f() RETURNS trigger LANGUAGE sql AS 'x'",
    ]
    assert todo.lines == [
        "migration: add_marketplace_fields_to_companies.sql was only partly applied, but the database lacks "
        "companies.b, function f",
        f"migration: line 3 (DROP TRIGGER IF EXISTS t ON companies) {unknown}",
        f"migration: line 5 (UPDATE companies SET a = 'x') {unknown}",
    ]
    assert len(plan(database(SEVERAL)).statements) == 7, "the first time, all of it"


def test_a_table_that_lacks_a_column_gets_it() -> None:
    have = OWN.replace("  event_data jsonb,\n", "")
    todo = plan(database(OWN, have))
    assert "ALTER TABLE marketplace_events ADD COLUMN event_data jsonb" in todo.statements
    assert not any(sql.startswith("CREATE TABLE") for sql in todo.statements)


@pytest.mark.parametrize(
    ("found", "category", "wanted", "usable"),
    [
        ("text", "S", "varchar(5)", True),
        ("citext", "S", "varchar(5)", True),
        ("int8", "N", "integer", True),
        ("timestamp", "D", "timestamptz", True),
        ("_text", "A", "text[]", True),
        ("bool", "B", "boolean", True),
        ("numeric", "N", "integer", False),
        ("date", "D", "timestamptz", False),
        ("text", "S", "text[]", False),
        ("jsonb", "U", "varchar(5)", False),
    ],
)
def test_a_column_of_another_type(found: str, category: str, wanted: str, usable: bool) -> None:
    now = database(f"ALTER TABLE companies ADD COLUMN IF NOT EXISTS a {wanted};")
    now["relations"]["companies"]["columns"]["a"] = (found, category)
    if usable:
        assert plan(now).adopted
    else:
        with pytest.raises(BadInput, match=rf"companies\.a is {found} in the database and must be .*; its values are"):
            plan(now)


def test_only_in_the_schema_that_the_file_names() -> None:
    have = "ALTER TABLE companies ADD a int;"
    assert plan(database("ALTER TABLE public.companies ADD a int;", have)).adopted
    assert not plan(database("ALTER TABLE other.companies ADD a int;", have)).adopted


LONG = [
    ("ADD COLUMN a uuid DEFAULT gen_random_uuid()", True),
    ("ADD COLUMN a timestamptz DEFAULT now()", False),
    ("ADD COLUMN a date DEFAULT CURRENT_DATE", False),
    ("ADD COLUMN a varchar(9) NOT NULL DEFAULT 'x'", False),
    ("ADD COLUMN a jsonb DEFAULT '{}'::jsonb", False),
    ("ADD COLUMN a bigserial", True),
    ("ADD COLUMN a int UNIQUE", True),
    ("ADD COLUMN a int REFERENCES salons", True),
    ("ADD COLUMN a int GENERATED ALWAYS AS (id + 1) STORED", True),
    ("ALTER COLUMN title TYPE varchar(9)", True),
    ("ALTER COLUMN title SET NOT NULL", True),
    ("ALTER COLUMN title DROP NOT NULL", False),
    ("ADD CONSTRAINT c CHECK (id > 0)", True),
    ("ADD CONSTRAINT c CHECK (id > 0) NOT VALID", False),
    ("ADD CONSTRAINT c UNIQUE USING INDEX i", False),
]


@pytest.mark.parametrize(("part", "is_long"), LONG)
def test_long_locks_of_a_large_table_are_named(part: str, is_long: bool) -> None:
    now = database(f"ALTER TABLE companies {part};")
    said = f"migration: line 1 (ALTER TABLE companies {part}) locks companies while it reads or writes all its rows "
    assert not any(line.startswith(said) for line in plan(now).lines)
    now["relations"]["companies"]["rows"] = 1_000_000
    assert any(line.startswith(said) and "(about 1,000,000)" in line for line in plan(now).lines) == is_long


def test_an_index_of_a_large_table_is_built_afterwards() -> None:
    now = database(OWN)
    now["relations"]["companies"]["rows"] = 1_000_000
    todo = plan(now)
    assert todo.concurrently == [f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {INDEX} ON companies (integration_status)"]
    assert not any(INDEX in sql for sql in todo.statements)
    assert any(
        "does not lock companies while it reads or writes all its rows (about 1,000,000)" in line for line in todo.lines
    )
    now["relations"]["companies"]["indexes"][INDEX] = False
    assert plan(now).concurrently == [f'DROP INDEX CONCURRENTLY "public"."{INDEX}"', *todo.concurrently]


def test_rights_for_the_roles_that_need_them() -> None:
    todo = plan(database(OWN, roles=['o"x']))
    assert 'GRANT SELECT, INSERT, UPDATE, DELETE ON "marketplace_events" TO "o""x"' in todo.statements
    now = database(OWN, OWN, applied=sha256(content(OWN)), roles=["app", "owner"])
    now["relations"]["marketplace_events"]["denied"] = ["app"]
    todo = plan(now)
    assert todo.lines == ["migration: app gets the rights to use marketplace_events"]
    assert (len(todo.statements), todo.enter) == (2, False)


def owned(now: Applied, table: str) -> Applied:
    """It is another role's there."""
    now["relations"][table]["owner"] = "boss"
    return now


def test_rights_that_lack_are_told_before_anything_runs() -> None:
    with pytest.raises(BadInput, match=r"companies\..* lacks, and companies belongs to boss, .*: name boss there"):
        check(owned(database(OWN), "companies"), "h", pooled=False)
    with pytest.raises(BadInput, match=r"index idx_.* lacks, and the role in DATABASE_URL may not create it: grant"):
        check(database(OWN, creates=False), "h", pooled=False)
    assert plan(database("ALTER TABLE companies ADD a text;", creates=False)).statements


@pytest.mark.parametrize("creates", [True, False])
def test_without_a_ledger_what_is_there_is_enough(creates: bool) -> None:
    """It is somebody else's, in a schema that this role may not use."""
    now = owned(database(OWN, OWN, keeps=False, creates=creates), "marketplace_events")
    assert plan(now) == Plan([], [], [], enter=False, adopted=True)
    now["relations"]["marketplace_events"]["denied"] = ["app"]
    assert plan(now).statements == [], "whoever owns it must say so"


MORE = """
ALTER TABLE companies ALTER COLUMN title DROP NOT NULL;
UPDATE companies SET title = '' WHERE title IS NULL;
ALTER TYPE state ADD VALUE 'paused';
COMMENT ON COLUMN companies.title IS 'its name';
"""


@pytest.mark.parametrize("applied", [None, "of an older version"])
def test_what_makes_nothing_to_be_looked_for_is_named(applied: str | None) -> None:
    """It was written into the file later, or somebody ran a part of it by hand. To run it could convert twice."""
    todo = plan(database(OWN + MORE, OWN, applied=applied))
    assert (todo.statements, todo.enter, todo.adopted) == ([], True, applied is None)
    changed = "has changed since it was applied, and all that it makes is there"
    assert todo.lines[0] == f"migration: {MIGRATION} " + (
        changed if applied else "was run by hand; entered in the ledger as adopted"
    )
    said = [re.sub(r"line \d+ ", "", line) for line in todo.lines[1:]]
    assert said == [
        f"migration: ({each}) leaves nothing to look for, and is not run: see that it has been"
        for each in (
            "ALTER TABLE companies ALTER COLUMN title DROP NOT NULL",
            "UPDATE companies SET title = '' WHERE title IS NULL",
            "ALTER TYPE state ADD VALUE 'paused'",
        )
    ]
    again = plan(database(OWN + MORE, OWN, applied=sha256(content(OWN + MORE))))
    assert again == Plan([], [], [], enter=False, adopted=False)
    assert plan(database(OWN + "-- a comment", OWN, applied="of an older version")).lines == []
    assert plan(database(OWN + MORE, OWN, applied=applied, keeps=False)).lines == [], "else each deploy would say it"


def test_what_is_gone_by_the_files_end_is_not_named() -> None:
    renamed = "ALTER TABLE companies ADD a text; ALTER TABLE companies RENAME a TO b;"
    assert plan(database(OWN + renamed, OWN + renamed, applied="of an older version")).lines == []


def test_another_than_the_owner_adopts_what_is_there() -> None:
    """It may keep a ledger, and to run the file again it lacks the rights."""
    todo = plan(owned(database(OWN, OWN), "companies"))
    assert (todo.statements, todo.enter, todo.adopted) == ([], True, True)


def test_what_a_pooler_cannot_do() -> None:
    now = database(OWN)
    assert check(now, "h", pooled=True) == plan(now)
    now["relations"]["companies"]["rows"] = 1_000_000
    assert check(now, "h", pooled=False).concurrently
    with pytest.raises(BadInput, match=r"migration: CREATE INDEX CONCURRENTLY .* use the database's direct address"):
        check(now, "h", pooled=True)


@pytest.mark.parametrize(
    ("line", "run"),
    [
        ("SET search_path = a, b", "SET LOCAL search_path TO 'a', 'b'"),
        ("SET LOCAL search_path = a", "SET LOCAL search_path = a"),
        ("SET SESSION ROLE owner", "SET LOCAL role TO 'owner'"),
        ("RESET search_path", "RESET search_path"),
    ],
)
def test_what_the_file_sets_ends_with_it(line: str, run: str) -> None:
    """The session may be a pooler's, who hands it to others."""
    [statement] = plan(database(f"{line};", roles=[])).statements
    assert statement == run


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({}, ""),
        ({"DATABASE_URL": "postgresql://u:hunter2@localhost:5432/d"}, ""),
        ({"DATABASE_URL": "postgresql://u:hunter2@127.0.0.1/d"}, ""),
        ({"DATABASE_URL": "postgresql://u:hunter2@[::1]/d"}, ""),
        ({"DATABASE_URL": "postgresql://u:hunter2@/d"}, ""),
        ({"DATABASE_URL": "postgresql:///d"}, ""),
        ({"DATABASE_URL": "mysql://u:hunter2@db.x/d"}, ""),
        ({"DATABASE_URL": "hunter2"}, ""),
        ({"DATABASE_URL": "postgresql://hunter2-x@"}, ""),
        ({"POSTGRES_HOST": "/run/postgresql"}, ""),
        ({"POSTGRES_HOST": "127.0.0.1", "SUPABASE_URL": "https://ref.supabase.co"}, ""),
        (
            {"DATABASE_URL": "postgres://u:hunter2@db.x.co:6543/d"},
            "db.x.co:6543 (DATABASE_URL in .env, TLS: not named)",
        ),
        (
            {"DATABASE_URL": "postgresql://u:hunt@er2/h:unter2@db.x.co/d?pgbouncer=true&sslmode=require"},
            "db.x.co (DATABASE_URL in .env, TLS: require)",
        ),
        (
            {"DATABASE_URL": "postgresql://u@[2a05::1]:5432/d?ssl=true"},
            "[2a05::1]:5432 (DATABASE_URL in .env, TLS: true)",
        ),
        ({"DB_HOST": "db.x.co"}, "db.x.co (DB_HOST in .env, TLS: not named)"),
        ({"SUPABASE_URL": "https://ref.supabase.co"}, "ref.supabase.co (SUPABASE_URL in .env, TLS: https)"),
    ],
)
def test_the_database_that_the_application_names(env: dict[str, str], said: str) -> None:
    assert elsewhere(env) == said
