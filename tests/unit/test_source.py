from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import remote.source
from operations import marked, source
from remote.files import text as as_text
from rules import KNOWN_METHODS, MENTION, METHODS, ROUTES, SESSION_POOL
from settings import BadInput
from tests.unit.conftest import ROOT

APP = ROOT / "tests/rehearsal/app"
ROUTES_TEXT = b"const router = express.Router();\nmodule.exports = router;\n"
COMPLETE = b"""class WhatsAppSessionPool {
  getQR(id) {}
  getSession(id) {}
  async createSession(id) {}
  getSessionStatus(id) {}
  async getOrCreateSession(id) {}
}
module.exports = { WhatsAppSessionPool };
"""


def changes(routes: bytes = ROUTES_TEXT, pool: bytes = COMPLETE, health_check: bool = True) -> dict[str, bytes]:
    return source.changes({ROUTES: as_text(routes), SESSION_POOL: as_text(pool)}, health_check)


def added(pool: bytes) -> list[str]:
    """The methods that our block adds."""
    changed = changes(pool=pool).get(SESSION_POOL)
    if changed is None:
        return []
    assert changed.startswith(pool) and marked.without(changed, "").rstrip(b"\r\n") == pool.rstrip(b"\r\n")
    block = changed[len(pool) :].decode()
    return [name for name in KNOWN_METHODS if f"{name}(sessionId) {{" in block]


# --- the health check


def test_health_check_goes_before_the_export() -> None:
    text = changes()[ROUTES]
    assert text.startswith(b"const router = express.Router();\n// >>> ai-admin-deploy")
    assert text.endswith(b"// <<< ai-admin-deploy\nmodule.exports = router;\n")
    assert b"router.get('/marketplace/health-check'" in text


def test_second_time_changes_nothing() -> None:
    assert ROUTES not in changes(changes()[ROUTES])


def test_switched_off_it_is_taken_out_again() -> None:
    assert changes(changes()[ROUTES], health_check=False) == {ROUTES: ROUTES_TEXT}
    assert changes(health_check=False) == {}


@pytest.mark.parametrize(
    "last",
    [
        b"const X = 1; module.exports = router;\n",
        b"router.use(onError); module.exports = router;\n",
        b"/* istanbul ignore next */ module.exports = router;\n",
        b"router.get('/', (q, s) => {\n  s.end();\n}); module.exports = router;\n",
        b"  module.exports = router;\n",
    ],
)
def test_what_is_before_the_export_on_its_line_stays(last: bytes) -> None:
    text = b"const router = express.Router();\n" + last
    first = changes(text)[ROUTES]
    assert marked.without(first, "") == text
    assert changes(first) == {}, "the second time nothing changes"
    assert changes(first, health_check=False) == {ROUTES: text}


@pytest.mark.parametrize("export", ["createRouter()", "{router}", "{ router }", "router, 1"])
def test_an_export_that_is_no_name_is_refused(export: str) -> None:
    with pytest.raises(BadInput, match="to put the health check before"):
        changes(f"const router = express.Router();\nmodule.exports = {export};\n".encode())


INHERITS = b"""class Base {
  getQR() { return 'theirs'; }
}
class WhatsAppSessionPool extends Base {
  getSession(id) {}
  async createSession(id) {}
  async getOrCreateSession(id) {}
}
module.exports = { WhatsAppSessionPool };
"""


def test_what_the_pool_has_by_other_means_stays(tmp_path: Path) -> None:
    """A parent class has it, which is read nowhere: Node knows."""
    new = changes(pool=INHERITS)[SESSION_POOL]
    (tmp_path / "pool.js").write_bytes(new)
    program = "const { WhatsAppSessionPool: P } = require('./pool.js'); const p = new P();"
    program += "console.log(p.getQR(), typeof p.getSessionStatus, p.getSessionStatus('1').status)"
    done = subprocess.run(["node", "-e", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "theirs function not_initialized\n"


def test_router_under_another_name_and_crlf() -> None:
    text = changes(b"const api = Router();\r\nmodule.exports = api;\r\n")[ROUTES]
    assert b"\r\napi.get('/marketplace/health-check'" in text
    assert text.count(b"\n") == text.count(b"\r\n")
    assert text.endswith(b"\r\nmodule.exports = api;\r\n")


@pytest.mark.parametrize(
    "text",
    [
        b"router.get('/marketplace/health-check', (q, s) => s.json({}));\nmodule.exports = router;\n",
        b'router.get("/marketplace/health-check", handler);\nmodule.exports = router;\n',
    ],
)
def test_made_by_hand_it_is_left_alone(text: bytes) -> None:
    assert ROUTES not in changes(text)


def test_in_a_comment_it_is_not_made_by_hand() -> None:
    assert ROUTES in changes(b"// router.get('/marketplace/health-check')\nmodule.exports = router;\n")


@pytest.mark.parametrize(
    "text",
    [
        b"const router = 1;\n",
        b"// module.exports = router;\n",
        b"const x = 'module.exports = router;';\n",
        b"module.exports = { router };\n",
        b"export default router;\n",
        b"function createRouter() { return express.Router(); }\nmodule.exports = createRouter;\n",
        b"const createRouter = (pool) => express.Router();\nmodule.exports = createRouter;\n",
        b"class Router {}\nmodule.exports = Router;\n",
        b"",
    ],
)
def test_no_place_for_it(text: bytes) -> None:
    with pytest.raises(BadInput, match=r"no `module\.exports = router;`.*health_check = False") as refused:
        changes(text)
    assert "\n" not in str(refused.value)
    assert ROUTES not in changes(text, health_check=False)


# --- the session pool


def test_complete_pool_is_left_alone() -> None:
    assert added(COMPLETE) == []


@pytest.mark.parametrize("method", METHODS)
def test_a_missing_method_alone_is_added(method: str) -> None:
    assert added(COMPLETE.replace(f" {method}(".encode(), b" other(")) == [method]


def test_a_method_that_the_routes_call_is_added_too() -> None:
    """The requirements do not list it, and the class never had it."""
    calls = b"const pool = getSessionPool();\npool.initSession(1);\npool.fly();\n" + ROUTES_TEXT
    changed = changes(calls, COMPLETE)[SESSION_POOL]
    assert b"initSession(sessionId) {" in changed
    assert b"fly" not in changed, "nobody knows what it should do"


@pytest.mark.parametrize(
    ("instead", "counts"),
    [
        (b"// getQR(id) {}", False),
        (b"/* getQR(id) {} */", False),
        (b"static getQR(id) {}", False),
        (b"other() { return 'getQR(id) {}'; }", False),
        (b"other() { return { getQR() {} }; }", False),
        (b"getQRs(id) {}", False),
        (b"async getQR(id) {}", True),
        (b"*getQR(id) {}", True),
        (b"get getQR() { return () => 1; }", True),
        (b"getQR = (id) => 1;", True),
        (b"getQR", True),
    ],
)
def test_what_counts_as_a_method(instead: bytes, counts: bool) -> None:
    assert added(COMPLETE.replace(b"getQR(id) {}", instead)) == ([] if counts else ["getQR"])


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        (b"WhatsAppSessionPool.prototype.getQR = function (id) {};\n", True),
        (b"// WhatsAppSessionPool.prototype.getQR = function (id) {};\n", False),
        (b"OtherPool.prototype.getQR = function (id) {};\n", False),
        (b"WhatsAppSessionPool.getQR = function (id) {};\n", False),
    ],
)
def test_assigned_to_the_prototype(line: bytes, counts: bool) -> None:
    assert added(COMPLETE.replace(b"getQR", b"other") + line) == ([] if counts else ["getQR"])


def test_methods_of_another_class_do_not_count() -> None:
    other = b"class Other {\n  getQR(id) {}\n}\n"
    assert added(other + COMPLETE.replace(b"getQR", b"other")) == ["getQR"]


def test_crlf_and_a_missing_final_newline() -> None:
    pool = COMPLETE.replace(b"getQR", b"other").rstrip().replace(b"\n", b"\r\n")
    text = changes(pool=pool)[SESSION_POOL]
    assert text.startswith(pool + b"\r\n// >>> ")
    assert text.count(b"\n") == text.count(b"\r\n")
    assert SESSION_POOL not in changes(pool=text)


def test_syntax_of_other_encodings_stays() -> None:
    pool = COMPLETE.replace(b"getQR", b"other") + b"// caf\xe9\n"
    assert changes(pool=pool)[SESSION_POOL].startswith(pool)


def test_a_class_that_the_rest_of_the_file_does_not_know_is_refused() -> None:
    """Our block at the end of the file would name what is not there, and the API end at its start."""
    pool = COMPLETE.replace(b"  getQR(id) {}\n", b"")
    inside = (
        b"const made = (() => {\n" + pool.replace(b"module.exports =", b"return") + b"})();\nmodule.exports = made;\n"
    )
    returned = b"module.exports = () => " + pool.partition(b"module")[0]
    other_name = pool.replace(b"class W", b"const Pool = class W")
    for text in (inside, returned, other_name):
        with pytest.raises(BadInput, match=r"getQR are missing, and no line outside the class knows it"):
            changes(pool=text)
    assert SESSION_POOL not in changes(pool=inside.replace(b"getSession(", b"getQR() {} getSession(")), "none lacks"


@pytest.mark.parametrize(
    "declared", [b"const WhatsAppSessionPool = class {", b"var WhatsAppSessionPool = class Pool {"]
)
def test_a_class_that_a_variable_holds(declared: bytes) -> None:
    pool = COMPLETE.replace(b"class WhatsAppSessionPool {", declared).replace(b"  getQR(id) {}\n", b"")
    assert added(pool) == ["getQR"]


@pytest.mark.parametrize(
    "maker",
    [
        b"async getOrCreateSession(id) { return this.getSession(id) ?? this.createSession(id); }",
        b"other() {}",
    ],
)
def test_create_session_that_would_call_itself_is_refused(maker: bytes) -> None:
    pool = COMPLETE.replace(b"async createSession(id) {}", b"").replace(b"async getOrCreateSession(id) {}", maker)
    with pytest.raises(BadInput, match="getOrCreateSession cannot stand in for it") as refused:
        changes(pool=pool)
    assert "\n" not in str(refused.value)


def test_no_such_class() -> None:
    with pytest.raises(BadInput, match="no class WhatsAppSessionPool"):
        changes(pool=b"// class WhatsAppSessionPool {}\n")


def test_what_is_read(tmp_path: Path) -> None:
    """The two files that get a block, and all that speaks of the marketplace."""
    for name, text in {
        SESSION_POOL: "class WhatsAppSessionPool {}",
        "src/index.js": "app.use(require('./marketplace'))",
        "src/deep/er/old.mjs": "r.get('/yclients/redirect', x)",
        "src/other.js": "r.redirect(302)",
        "src/marketplace.txt": "marketplace",
        "src/large.js": "marketplace" + " " * 500_000,
        "public/marketplace.js": "marketplace",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "src/link.js").symlink_to(tmp_path / "src/index.js")
    found = remote.source.read(app_dir=str(tmp_path), paths=[ROUTES, SESSION_POOL], mention=MENTION)
    assert set(found) == {ROUTES, SESSION_POOL, "src/index.js", "src/deep/er/old.mjs"}
    assert (found[ROUTES], found[SESSION_POOL]) == (None, "class WhatsAppSessionPool {}")


def test_file_missing() -> None:
    with pytest.raises(BadInput, match=f"^{SESSION_POOL} is not in the application's folder"):
        source.changes({ROUTES: as_text(ROUTES_TEXT), SESSION_POOL: None}, True)


def test_the_rehearsal_application_lacks_get_qr() -> None:
    routes, pool = (APP / ROUTES).read_bytes(), (APP / SESSION_POOL).read_bytes()
    block = changes(routes, pool)[SESSION_POOL].removeprefix(pool)
    assert [name for name in KNOWN_METHODS if f"{name}(".encode() in block.replace(b"this.", b"")] == [
        *("getQR", "getSession", "createSession"),
        "initSession",
    ]
