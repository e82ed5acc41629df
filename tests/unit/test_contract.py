"""What the application needs, read from its source: the stand-in's, and the forms that such sources have."""

from __future__ import annotations

import re

import pytest

import contract
from contract import Contract
from rules import KEYS, MENTION, ROUTES, SESSION_POOL
from tests.unit.conftest import ROOT

APP = ROOT / "tests/rehearsal/app"
ENTRY = """
const express = require('express');
const app = express();
const old = require('./api/routes/old');
app.use('/auth', old);
app.use('/', require('./api/routes/yclients-marketplace'));
"""
POOL = "class WhatsAppSessionPool extends EventEmitter { getQR(id) {} }"
ROUTER = "const router = require('express').Router();\n"


def read(routes: str = "", pool: str = POOL, **others: str) -> Contract:
    """Of these sources; `others` by the name of a file below src."""
    files = {ROUTES: ROUTER + routes, SESSION_POOL: pool}
    files |= {f"src/{name.replace('__', '/')}.js": source for name, source in others.items()}
    return contract.read({file: source.encode() for file, source in files.items()})


def test_the_stand_in() -> None:
    files = {str(file.relative_to(APP)): file.read_bytes() for file in (APP / "src").rglob("*.js")}
    found = contract.read(
        {file: text for file, text in files.items() if re.search(MENTION.encode(), text) or file == SESSION_POOL}
    )
    assert set(found.calls) == {"on", "getSession", "initSession", "createSession", "getQR"}
    assert str(found.calls["initSession"]) == f"{ROUTES} line 48"
    assert found.lacking == ["getQR", "initSession"]
    assert found.upsert is not None
    assert found.upsert.columns[:2] == ("yclients_id", "name")
    assert (len(found.upsert.columns), found.upsert.key) == (11, ("yclients_id",))
    assert found.upsert.literals == {"integration_status": "pending_whatsapp"}
    assert set(found.packages) == {"express", "jsonwebtoken", "socket.io", "qrcode", "@whiskeysockets/baileys"}
    assert {key: place.file for key, place in found.keys.items()} == dict.fromkeys(KEYS, "src/config.js")
    assert found.unread == []
    assert found.shadowed() == []


@pytest.mark.parametrize(
    "source",
    [
        "const pool = getSessionPool(); pool.fly(1);",
        "const pool = await sessions.getSessionPool(); pool?.fly(1);",
        "let pool; pool ??= getSessionPool(); pool.fly(1);",
        "class A { constructor() { this.pool = getSessionPool(); } b() { return this.pool.fly(1); } }",
        "getSessionPool().fly(1);",
        "(await getSessionPool()).fly(1);",
        "const { fly } = getSessionPool(); fly(1);",
        "const pool = new WhatsAppSessionPool({ a: 1 }); pool.fly(1);",
        "const pool = require('../../integrations/whatsapp/session-pool'); pool.fly(1);",
        "const pool = require('../../integrations/whatsapp/session-pool').getSessionPool(); pool.fly(1);",
    ],
)
def test_a_call_on_the_pool(source: str) -> None:
    found = read(source)
    assert (list(found.calls), "fly" in found.lacking) == (["fly"], True)
    assert not any("calls on" in each for each in found.unread)


@pytest.mark.parametrize(
    "source", ["// pool.fly(1)", "other.fly(1);", "const text = 'pool.fly(1)';", "pool.maps.fly();"]
)
def test_no_call_on_the_pool(source: str) -> None:
    assert list(read(f"const pool = getSessionPool(); pool.getQR(1);\n{source}").calls) == ["getQR"]


def test_what_an_event_emitter_has_is_not_lacking() -> None:
    calls = "const pool = getSessionPool(); pool.on('qr'); pool.removeListener('qr');"
    assert not {"on", "removeListener"} & set(read(calls).lacking)
    assert {"on", "removeListener"} <= set(read(calls, POOL.replace("extends EventEmitter", "")).lacking)


def test_what_cannot_be_read_is_named() -> None:
    found = read("const { give } = require('../../integrations/whatsapp/session-pool'); give(1);", "const a = 1;")
    assert found.unread == [
        f"what {ROUTES} calls on the session pool",
        f"{SESSION_POOL}: no class WhatsAppSessionPool",
        "in which order the routers are mounted",
        f"where {ROUTES} is mounted",
        f"what {ROUTES} writes into companies",
    ]
    assert "what WhatsAppSessionPool inherits (extends Base)" in read(pool=POOL.replace("EventEmitter", "Base")).unread


@pytest.mark.parametrize(
    ("old", "first"),
    [
        ("router.get('/yclients/redirect', x);", True),
        ("router.all(['/a', '/yclients/redirect'], x);", True),
        ("router.get('/:system/redirect', x);", True),
        ("router.post('/yclients/redirect', x);", False),
        ("router.get('/redirect', x);", False),
        ("other.get('/yclients/redirect', x);", False),
    ],
)
def test_another_router_answers_first(old: str, first: bool) -> None:
    routes = "router.get('/auth/yclients/redirect', (q, s) => s.status(400).send(`нет ${x} ID салона`));"
    found = read(routes, index=ENTRY, api__routes__old=ROUTER + old)
    shadowed = [(route.path, str(other.place)) for route, other in found.shadowed()]
    assert shadowed == ([("/auth/yclients/redirect", "src/api/routes/old.js line 2")] if first else [])
    later = ENTRY.replace("app.use('/auth', old);", "") + "app.use('/auth', old);"
    assert read(routes, index=later, api__routes__old=ROUTER + old).shadowed() == []
    (own,) = (route for route in found.routes if route.place.file == ROUTES)
    assert own.texts == ("нет ", " ID салона")


def test_an_application_that_only_reads_a_key_mounts_nothing() -> None:
    """Another program of the same folder: its routes stand before nobody's."""
    other = "const app = express(); app.get('/auth/yclients/redirect', x); sign(process.env.JWT_SECRET);"
    found = read("router.get('/auth/yclients/redirect', x);", index=ENTRY, admin=other)
    assert (found.shadowed(), list(found.keys)) == ([], ["JWT_SECRET"])


def test_a_router_within_a_router() -> None:
    index = ENTRY.replace("./api/routes/yclients-marketplace", "./api")
    api = ROUTER + "router.use('/v1', require('./routes/yclients-marketplace'));"
    found = read("router.get('/x', y);", index=index, api__index=api)
    assert [route.path for route in found.routes] == ["/v1/x"]


def test_what_is_loaded() -> None:
    routes = """
        const a = require('a'); import b from '@s/b/deep'; const c = await import('c');
        require('./own'); require('fs'); require('node:fs/promises'); require('dgram'); require('#own');
        require(path.join(ROOT, 'src', 'config')); require(process.env.X || 'no'); // require('no')
        try { require('optional'); } catch {}
    """
    assert set(read(routes).packages) == {"express", "a", "@s/b", "c"}


@pytest.mark.parametrize(
    ("source", "reads"),
    [
        ("sign(x, process.env.JWT_SECRET || 'public');", True),
        ("const { JWT_SECRET } = process.env;", True),
        ("const { JWT_SECRET: secret = 'public' } = process.env;", True),
        ("get('JWT_SECRET'); // by a helper of theirs", True),
        ("const ready = !!process.env.JWT_SECRET; // process.env.JWT_SECRET", False),
        ("process.env.JWT_SECRET_KEY;", False),
        ("if (!ready && process.env.JWT_SECRET) sign();", True),
    ],
)
def test_which_of_our_keys_it_reads(source: str, reads: bool) -> None:
    assert list(read(config=source).keys) == (["JWT_SECRET"] if reads else [])
    assert list(read(source).keys) == (["JWT_SECRET"] if reads else [])


@pytest.mark.parametrize(
    "source",
    [
        "sql`INSERT INTO companies (yclients_id, name) VALUES (${a}, ${b}) ON CONFLICT (yclients_id) DO NOTHING`",
        "db.from('companies').upsert({ yclients_id: a, name }, { onConflict: 'yclients_id' })",
        "const row = { 'yclients_id': a, name }; await db.from('companies').upsert([row], {onConflict: 'yclients_id'})",
    ],
)
def test_what_the_entry_writes(source: str) -> None:
    upsert = read(source).upsert
    assert upsert is not None
    assert (upsert.columns, upsert.key) == (("yclients_id", "name"), ("yclients_id",))


@pytest.mark.parametrize(
    ("source", "literals"),
    [
        ("sql`INSERT INTO companies (a, b, c, d) VALUES ($1, 'x, (y', now(), 'z')`", {"b": "x, (y", "d": "z"}),
        ("sql`INSERT INTO companies (a, b) VALUES ('x' || $1, concat('y', 1))`", {}),
        ("sql`INSERT INTO companies (a) SELECT 'x'`", {}),
        ("sql`INSERT INTO companies (a, b, c) VALUES (ARRAY['x', 'y'], 'z', $1)`", {}),
        ("db.from('companies').upsert({ a, b: 'x', 'c': \"y\", d: z, e: `w` })", {"b": "x", "c": "y"}),
    ],
)
def test_which_values_stand_in_the_source(source: str, literals: dict[str, str]) -> None:
    upsert = read(source).upsert
    assert upsert is not None
    assert upsert.literals == literals


@pytest.mark.parametrize("source", ["db.from('companies').upsert({ ...row })", "db.from('firms').upsert({ a: 1 })"])
def test_what_the_entry_writes_cannot_be_read(source: str) -> None:
    assert read(source).upsert is None
