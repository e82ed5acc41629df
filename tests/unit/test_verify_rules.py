"""Deploy and verification look for the same things: what rules.py and the settings say, and nothing of their own."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

import rules
from settings import Settings
from tests.rehearsal.story import ROOT
from tests.verify.checks import Page, forbidden, is_another_major, lasting
from tests.verify.hosts import PYTHON
from tests.verify.target import PATHS, PROGRAMS, NotChecked, Target

DEFAULTS = {
    key: value for key, value in runpy.run_path(str(ROOT / "group_data/all.py")).items() if not key.startswith("_")
}

Here = Callable[[Settings], Target]
# Of pm2 7.0's log.
EXITED, STARTING = "App [{{}}:{}] exited with code [0] via signal [SIGINT]", "App [{}:0] starting in -fork mode-"
FULL = (
    "[PM2][WORKER] Process 0 restarted because it exceeds --max-memory-restart value"
    " (current_memory=79691776 max_memory_limit=31457280 [octets])"
)
CHANGED = "Change detected on path logs/api.log for app {} - restarting"


def _crash(ago: int) -> list[tuple[int, str]]:
    return [(ago, EXITED.format(0)), (ago - 1, STARTING)]


def _asked(ago: int) -> list[tuple[int, str]]:
    """What pm2 logs of a restart, whoever asked for it."""
    return [(ago, "Stopping app:{} id:0"), (ago - 1, EXITED.format(0)), (ago - 1, STARTING)]


@pytest.fixture
def here() -> Iterator[Here]:
    """A target that is this machine; it is closed whatever becomes of the test."""
    with ExitStack() as stack:

        def make(settings: Settings) -> Target:
            target = Target("here", settings, "", ["sh", "-c", PYTHON.get_raw_value()])
            stack.callback(target.backend.close)
            return target

        yield make


VALUES = [
    ("ваш_токен", True),
    ("ВАШ_PARTNER_TOKEN", True),
    (" сгенерируйте_случайную_строку_32_символа ", True),
    ("ChangeMe", True),
    ("change-me", True),
    ("change me", False),
    ("xxxx", False),
    ("a-todo", False),
    ("your_partner_token_here", True),
    ("your-super-secret-jwt-key-change-this-in-production", True),
    ("<token>", True),
    ("TOKEN_FROM_YCLIENTS", True),
    ("токен_от_YClients", True),
    ("вставьте_токен_сюда", True),
    ("…", True),
    ("...", True),
    ("a.b", False),
    ("yourtoken", False),
    ("here", False),
    ("", False),
]


@pytest.mark.parametrize(("value", "is_placeholder"), VALUES)
def test_a_placeholder_is_one_to_both(value: str, is_placeholder: bool) -> None:
    assert rules.is_placeholder(value) == is_placeholder
    assert "new RegExp(rules.placeholder, 'iu')" in (PROGRAMS / "dotenv.js").read_text(encoding="utf-8")
    program = "const [p, v] = JSON.parse(process.argv[1]); console.log(new RegExp(p, 'iu').test(v.trim()))"
    done = subprocess.run(
        ["node", "-e", program, json.dumps([rules.PLACEHOLDER, value])], capture_output=True, text=True
    )
    assert json.loads(done.stdout) == is_placeholder


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        (rules.PARTNER_TOKEN, "Bearer 5dfk3jr8sd9fk3jr8sd9", "begins with Bearer"),
        (rules.PARTNER_TOKEN, "bearer:5dfk3jr8sd9fk3jr8sd9", "begins with Bearer"),
        (rules.PARTNER_TOKEN, "12345", "is it the application id?"),
        (rules.PARTNER_TOKEN, "5dfk3jr8sd9fk3jr8sd\u0410", "only look Latin"),
        (rules.PARTNER_TOKEN, "5dfk3jr8 d9fk3jr8sd9", "has a space"),
        (rules.PARTNER_TOKEN, "short", "too short"),
        (rules.PARTNER_TOKEN, "bearer5dfk3jr8sd9fk3jr8sd9", ""),
        (rules.PARTNER_TOKEN, "51234567890123456789", ""),
        (rules.APP_ID, "5dfk3jr8sd9fk3jr8sd9", "is not a number"),
        (rules.APP_ID, "\u0661\u0662", "is not a number"),
        (rules.APP_ID, "12345", ""),
        (rules.JWT_SECRET, "Bearer \u0410", ""),
    ],
)
def test_what_cannot_be_a_token_is_none_to_both(here: Here, tmp_path: Path, key: str, value: str, why: str) -> None:
    """To deploy, and to verification's program with the application's dotenv, here a stand-in that splits at `=`."""
    found = rules.malformed(key, value)
    assert why in found and bool(why) == bool(found)
    dotenv = tmp_path / "node_modules/dotenv/index.js"
    dotenv.parent.mkdir(parents=True)
    dotenv.write_text("exports.parse = (text) => Object.fromEntries([text.trim().split('=')]);")
    (tmp_path / ".env").write_text(f"{key}={value}\n", encoding="utf-8")
    settings = Settings.load({**DEFAULTS, "app_dir": str(tmp_path)})
    target = here(settings)
    assert target.dotenv["keys"][key]["malformed"] == found


@pytest.mark.parametrize(
    "program", sorted({*PROGRAMS.glob("*.*")} - {PROGRAMS / "qr.js"}), ids=lambda program: program.name
)
def test_the_programs_have_no_copies(program: Path) -> None:
    text = program.read_text(encoding="utf-8")
    own = [
        *rules.KEYS,
        *rules.PUBLIC_DEFAULTS,
        *rules.COLUMNS,
        rules.HEALTH_CHECK,
        rules.SESSION_POOL,
        rules.POOL_CLASS,
    ]
    assert [each for each in [*own, *DEFAULTS["packages"]] if f"'{each}'" in text or f"/{each}`" in text] == []


def test_arguments_arrive(here: Here, tmp_path: Path) -> None:
    """Through the shell's quoting, to a program of Node; what it prints comes back."""
    settings = Settings.load({**DEFAULTS, "app_dir": str(tmp_path), "packages": {"ws": "^8", "@scope/name": "^1"}})
    (tmp_path / "src/integrations/whatsapp").mkdir(parents=True)
    (tmp_path / rules.SESSION_POOL).write_text(f"exports.{rules.POOL_CLASS} = class {{ its() {{}} }};")
    target = here(settings)
    found = target.pool
    assert (found["loads"], "its" in found["methods"]) == ("yes", True)
    assert found["packages"].keys() == {"ws", "@scope/name"}


@pytest.mark.parametrize("reading", ["answers", "dotenv", "passed", "pool", "processes", "sources", "surroundings"])
def test_what_many_checks_read_is_read_once(here: Here, tmp_path: Path, reading: str) -> None:
    """Of equal commands one runs: a reading that differed from time to time would run for each check anew."""
    target = here(Settings.load({**DEFAULTS, "app_dir": str(tmp_path)}))
    commands = []
    for _ in range(2):
        with suppress(NotChecked):
            getattr(target, reading)
        commands.append(len(target.backend._numbered))
    assert commands[0] == commands[1]


def test_no_remedy_hangs_or_does_nothing() -> None:
    """What tests/detection types is proven there; this is for what a person types to see more."""
    text = "".join(file.read_text(encoding="utf-8") for file in PROGRAMS.parent.glob("*.py"))
    assert "systemctl status" not in text
    for start, end in (("pm2} logs", "--nostream"), ("journalctl -u", "--no-pager"), ("certbot --nginx", " -n -d ")):
        found = [each.partition("\n")[0] for each in text.split(start)[1:]]
        assert found and all(end in each for each in found), start


@pytest.mark.parametrize(
    ("version", "wanted", "is_another"),
    [
        ("4.8.1", "^4.7.0", False),
        ("5.0.0", "^4.7.0", True),
        ("7.0.0-rc.4", "7.0.0-rc.3", False),
        ("6.7.0", "~7", True),
        ("9.0.2", "^8.5.1 || ^9.0.0", False),
        ("4.8.1", "latest", False),
        ("4.8.1", "*", False),
        ("4.8.1", ">=3", False),
        ("6.7.0", "github:WhiskeySockets/Baileys", False),
    ],
)
def test_another_major(version: str, wanted: str, is_another: bool) -> None:
    assert is_another_major(version, wanted) == is_another


@pytest.mark.parametrize(("days", "left"), [(90, 25), (365, 25), (45, 12), (64, 17), (6, 2)])
def test_days_that_a_certificate_must_have_left(days: float, left: int) -> None:
    """Less than certbot 4 renews with (a third, or half of less than 10 days), more than none."""
    assert lasting(days) == left < days / (2 if days < 10 else 3)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("A=1YCLIENTS_PARTNER_TOKEN=x\n", "glued"),
        ("OLD_YCLIENTS_PARTNER_TOKEN=x\n", "absent"),
        ("# A=1 XYCLIENTS_PARTNER_TOKEN=x\n", "absent"),
        ("YCLIENTS_PARTNER_TOKEN=x\n", "set"),
    ],
)
def test_a_key_that_another_name_ends_with_is_not_glued(tmp_path: Path, text: str, kind: str) -> None:
    module = tmp_path / "node_modules/dotenv/index.js"
    module.parent.mkdir(parents=True)
    module.write_text(
        "exports.parse = (text) => Object.fromEntries(text.split('\\n').filter(Boolean).map((line) =>"
        " [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]));"
    )
    (tmp_path / ".env").write_text(text)
    key = "YCLIENTS_PARTNER_TOKEN"
    asked = {"folder": str(tmp_path), "keys": [key], "nonce": "", "secret": "", "publicDefaults": [], "malformed": {}}
    program, question = (PROGRAMS / "dotenv.js").read_text(), json.dumps({**asked, "placeholder": rules.PLACEHOLDER})
    done = subprocess.run(["node", "-e", program, question], capture_output=True, text=True)
    assert json.loads(done.stdout)["keys"][key]["kind"] == kind


@pytest.mark.parametrize(
    ("said", "ends", "why"),
    [
        # pm2 was asked to end two workers, and it took long: the hour begins between
        (
            [
                (3601, "Stopping app:{} id:0"),
                (3601, "Stopping app:{} id:1"),
                (59, EXITED.format(0)),
                (59, EXITED.format(1)),
            ],
            0,
            "",
        ),
        (
            [
                (3601, "Stopping app:{} id:0"),
                (59, EXITED.format(0)),
                (58, STARTING),
                (50, EXITED.format(0)),
                (40, STARTING),
            ],
            1,
            "",
        ),
        ([*_crash(3665), *_crash(50), (30, EXITED.format(0))], 2, ""),
        ([*_crash(50), *_crash(40), *_asked(30)], 0, ""),
        # pm2's own restarts, as 7.0.4 logs them; the last two are none of ours
        ([*_asked(3690), (50, FULL), *_asked(50), (20, FULL), *_asked(20)], 2, "memory"),
        ([*_asked(3690), (50, CHANGED), *_asked(49), (20, CHANGED), *_asked(20)], 2, "watch"),
        ([(50, FULL), (50, STARTING), (20, FULL), (20, STARTING)], 2, "memory"),  # in cluster mode
        ([(50, FULL), *_asked(50), (20, EXITED.format(0)), (19, STARTING)], 2, ""),  # it crashes
        ([(50, CHANGED), *_asked(50), *_asked(30)], 0, ""),
        ([*_asked(3690), (50, FULL.replace(" 0 ", " 7 ")), (50, "Stopping app:another id:7")], 0, ""),
        ([*_asked(3690), (50, CHANGED.replace("{}", "another")), (50, "Stopping app:another id:7")], 0, ""),
    ],
)
def test_an_end_that_was_asked_for_is_no_crash(
    tmp_path: Path, said: list[tuple[int, str]], ends: int, why: str
) -> None:
    lines = []
    for ago, text in said:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() - ago))
        lines.append(f"{when}: PM2 log: {text.replace('{}', 'no-such-api')}")
    (tmp_path / "pm2.log").write_text("\n".join(lines))
    asked = {"app": "no-such-api", "app_dir": str(tmp_path), "port": 1, "keys": [], "seconds": [3600]}
    command = ["python3", "-I", "-S", "-c", (PROGRAMS / "processes.py").read_text(), json.dumps(asked)]
    environment = {**os.environ, "PM2_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = json.loads(done.stdout)["pm2"]
    assert (found["ends"], found["why"]) == ([ends], why)


# --- where nginx passes a path, and the page's files


Passing = Callable[..., dict[str, list[list[Any]]]]


@pytest.fixture
def passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Passing:
    """Of a configuration's files, the first of them nginx.conf: what the program makes of them."""

    def ask(**files: str) -> dict[str, list[list[Any]]]:
        text = "".join(f"# configuration file /etc/nginx/{name}:\n{content}\n" for name, content in files.items())
        (tmp_path / "conf").write_text(text)
        nginx = tmp_path / "nginx"
        nginx.write_text(f"#!/bin/sh\ncat {tmp_path}/conf\n")
        nginx.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        question = json.dumps({"domain": "example.org", "paths": PATHS})
        command = ["python3", "-I", "-S", "-c", (PROGRAMS / "nginx.py").read_text(), question]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "hunter2" not in done.stdout  # only what is asked for is sent
        return dict(json.loads(done.stdout))

    return ask


TO = "proxy_pass http://127.0.0.1:3000;"
SLOW = "location / { proxy_pass http://127.0.0.1:9; proxy_read_timeout 1s; }"
OTHERS = (
    f"server {{ listen 443; server_name other.org; {SLOW} }} server {{ listen 80; server_name example.org; {SLOW} }}"
    f" server {{ listen 8443 ssl; server_name example.org; {SLOW} }}"
    f" server {{ listen 443 ssl; server_name ~^(?<sub>.+)\\.other\\.org$ ~^(?R); {SLOW} }}"
)


@pytest.mark.parametrize(
    ("inside", "seconds"),
    [
        (f"location /socket.io/ {{ {TO} proxy_read_timeout 5s; }}", [5]),
        (f"location /socket.io/ {{\n  {TO} proxy_read_timeout 3600s; # or 5s\n}}", [3600]),
        (f"location /a {{ {TO} proxy_read_timeout 1s; }} location /socket.io/ {{ {TO} }}", [60]),
        (f"proxy_read_timeout 2m;\nlocation ^~ /socket.io/ {{ {TO} # proxy_read_timeout 1s;\n}}", [120]),
        (
            f'location /a {{ return 200 "}} {{ it\'s"; }}\n'
            f"location ~ ^/socket\\.io/ {{ {TO} proxy_read_timeout 500ms; }}",
            [0.5],
        ),
        (f"add_header A 'a {{ \" b'; location /socket.io/ {{ set $a ${{b}}c; {TO} proxy_read_timeout 90; }}", [90]),
        (f'location = /socket.io/ {{\n  proxy_set_header X "#{{hunter2";\n  {TO} proxy_read_timeout\n    7s;\n}}', [7]),
        (f"location ~ ^/(api|socket\\.io)/ {{ {TO} proxy_read_timeout 8s; }} location / {{ {TO} }}", [8]),
        (f"location ^~ /socket.io/ {{ {TO} }} location ~ socket {{ {TO} proxy_read_timeout 8s; }}", [60]),
        (f"location /socket.io/ {{ {TO} }} location = /socket.io/ {{ {TO} proxy_read_timeout 8s; }}", [8]),
        (f"location /socket.io/ {{ include snippets/*.conf; {TO} }}", [9]),
        (f"location /socket.io/ {{ {TO} }} include snippets/a.conf;", [9]),
        ("location /socket.io/ { return 404; }", []),
        (f"location ~^/(?<area>socket\\.io)/ {{ {TO} proxy_read_timeout 1m30s; }}", [90]),
        (f"location / {{ {TO} location /socket.io/ {{ {TO} proxy_read_timeout 8s; }} }}", [8]),
        (f"location / {{ {TO} location /socket.io/ {{ return 404; }} }}", []),
        (f"location ~ ^/(?R)socket {{ {TO} }}", []),  # of Perl: not judged
        (f"location /socket.io/ {{ {TO} include snippets*; }}", [60]),
    ],
)
def test_timeouts(passed: Passing, inside: str, seconds: list[float]) -> None:
    main = "http {\n include sites/*;\n}\n"
    site = f"server {{ listen 443 ssl; server_name www.example.org example.org; {inside}\n}}\n{OTHERS}"
    found = passed(**{"nginx.conf": main, "sites/a": site, "snippets/a.conf": "proxy_read_timeout 9s;"})
    assert [each[1] for each in found["/socket.io/"]] == seconds


@pytest.mark.parametrize(
    ("name", "is_its"),
    [
        ("example.org", True),
        ("*.org", True),
        (".example.org", True),
        (r"~^(www\.)?example\.org$", True),
        ("EXAMPLE.org", True),
        ("_", False),  # of several, nobody knows which serves it
        ("www.example.org", False),
    ],
)
def test_whose_server_it_is(passed: Passing, name: str, is_its: bool) -> None:
    site = f"server {{ listen 443 ssl; server_name {name}; location /auth/ {{ {TO} }} }}"
    found = passed(**{"nginx.conf": f"http {{ {site} {OTHERS} }}"})
    assert found["/auth/"] == ([[["127.0.0.1:3000"], 60]] if is_its else [])


def test_the_best_name_wins(passed: Passing) -> None:
    """Over those of other sites, and of equals the first: nginx ignores the second ("conflicting server name")."""
    others = "".join(f"server {{ listen 443 ssl; server_name {name}; {SLOW} }} " for name in ("*.org", "~example"))
    site = f"server {{ listen [::]:443 ssl; server_name example.org; location /auth/ {{ {TO} }} }}"
    old = f"server {{ listen 443 ssl; server_name example.org; {SLOW} }}"
    found = passed(**{"nginx.conf": f"http {{ {others} {site} {old} }}"})
    assert found["/auth/"] == [[["127.0.0.1:3000"], 60]]


def test_of_the_whole_of_nginx(passed: Passing) -> None:
    site = f"server {{ location / {{ {TO} }} }}"  # the only one
    found = passed(**{"nginx.conf": "http { proxy_read_timeout 15s; include sites/*; }", "sites/a": site})
    assert found["/socket.io/"] == found["/auth/"] == [[["127.0.0.1:3000"], 15]]


@pytest.mark.parametrize(
    ("to", "addresses"),
    [
        ("http://localhost:3001", ["127.0.0.1:3001"]),
        ("http://[::1]:3001/", ["127.0.0.1:3001"]),
        ("http://127.0.0.1:3001$request_uri", ["127.0.0.1:3001"]),
        ("http://$backend", []),
        ("http://127.0.0.1:$port", []),
        ("http://unix:/run/a.sock:/", []),
        ("http://copies", ["127.0.0.1:3000", "127.0.0.1:3001"]),
        ("http://spare", ["127.0.0.1:3000"]),
    ],
)
def test_addresses(passed: Passing, to: str, addresses: list[str]) -> None:
    main = (
        "http { upstream copies { server localhost:3000; server 127.0.0.1:3001 weight=2; }"
        " upstream spare { server 127.0.0.1:3000; server 127.0.0.1:3001 backup; server 127.0.0.1:3002 down; }"
        f" server {{ location /auth/ {{ proxy_pass {to}; }} }} }}"
    )
    assert passed(**{"nginx.conf": main})["/auth/"] == [[addresses, 60]]


def page(html: str) -> Page:
    return Page(html, "https://example.org/marketplace/onboarding")


def test_the_files_of_a_page() -> None:
    found = page(
        """<script src="/socket.io/socket.io.js"></script><script>let src = 'none.js'; "<script src=no.js>"</script>
        <SCRIPT type=module src=app.js></SCRIPT><link rel="stylesheet" href="css/a.css?v=1"><link rel=icon href=/i.png>
        <script src="https://cdn.example/x.js?a=1&amp;b=2"></script><script src='//cdn.example/y.js'></script>
        <!--[if lt IE 9]><script src="https://old.example/z.js"></script><![endif]--><script src="https://[x/a.js">
        </script><script type="application/json" src="/data.json"></script><script src="https://example.org/own.js">"""
    )
    own = ["/socket.io/socket.io.js", "/marketplace/app.js", "/own.js", "/marketplace/css/a.css?v=1"]
    assert found.of_its_site() == own
    assert found.from_elsewhere() == ["https://cdn.example/x.js?a=1&b=2", "https://cdn.example/y.js"]
    assert page('<base href="/"><script src=a.js></script>').of_its_site() == ["/a.js"]
    assert page('<base href="https://cdn.example/x/"><script src=a.js></script>').from_elsewhere() == [
        "https://cdn.example/x/a.js"
    ]
    assert page("<![ endif]><![foo]><script src=a.js></script>").of_its_site() == ["/marketplace/a.js"]


PAGE = '<script src="/a.js"></script><script nonce="n1">x</script><script src="https://cdn.example/q.js"></script>'
A, Q = '<script src="/a.js">', '<script src="https://cdn.example/q.js">'
FINE = "connect-src 'self'; img-src data:; script-src"


@pytest.mark.parametrize(
    ("policy", "refused"),
    [
        ("", []),
        (f"{FINE} 'self' 'unsafe-inline' https://cdn.example", []),
        (f"{FINE} 'self' 'unsafe-inline' cdn.example/q.js", []),
        (f"{FINE} 'self' 'unsafe-inline' *.example", []),
        (f"{FINE} * 'unsafe-inline'", []),
        (f"{FINE} 'SELF' 'unsafe-inline' http://cdn.example:*", []),
        (f"{FINE} 'self' 'unsafe-inline' https://cdn.example:443", []),
        (f"{FINE} http: 'unsafe-inline'", []),
        ("connect-src wss://example.org/socket.io/", ["the connection to socket.io (connect-src)"]),
        ("connect-src https://example.org:443", []),
        ("connect-src http:", []),
        ("connect-src https://api.example.org", ["the connection to socket.io (connect-src)"]),
        (f"{FINE} 'strict-dynamic' 'unsafe-inline' 'nonce-n1'; script-src *", [A, Q]),
        (f"{FINE} https: 'nonce-n1'", []),
        (f"{FINE} 'self' 'unsafe-inline'", [Q]),
        (f"{FINE} https: 'unsafe-inline' 'nonce-n2'", ['<script nonce="n1">']),
        (f"{FINE} 'self' 'unsafe-inline' elsewhere.example cdn.example:8443", [Q]),
        (f"{FINE} 'nonce-n1' 'strict-dynamic'", [A, Q]),
        ("default-src https: 'unsafe-inline'", ["a QR code as a data: image (img-src)"]),
        (
            "img-src data:; default-src https: 'unsafe-inline'; connect-src 'none'",
            ["the connection to socket.io (connect-src)"],
        ),
        ("script-src-attr 'none'", ["an on… attribute"]),
    ],
)
def test_what_a_policy_forbids(policy: str, refused: list[str]) -> None:
    html = PAGE + ("<p onclick='x'>" if "attr" in policy else "")
    assert forbidden(page(html), [policy] if policy else [], True) == refused
    meta = f'<meta content="{policy}" http-equiv="Content-Security-Policy">'
    assert forbidden(page(meta + html), [], True) == refused
    assert forbidden(page(""), ["img-src 'self'"], False) == []
    alone = page("<script>io('/x', { transports: ['websocket'] })</script>")
    assert forbidden(alone, ["connect-src wss://example.org"], False) == []
