"""The site's nginx configuration: a marked block in what is there, or the whole site where there is none.

The site file belongs to the operator, and certbot writes into it. It is read with crossplane; only line numbers come
from there, so every byte outside our block stays.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
import tempfile
from collections.abc import Generator, Iterator
from functools import cache
from typing import Any

import crossplane
from pyinfra.api.operation import operation
from pyinfra.context import host

import remote
from facts.look import Wanted, look
from facts.nginx import Nginx
from operations import marked
from operations.render import render
from operations.step import Step, say
from settings import BadInput, Settings

PATHS = ("/socket.io/", "/api/", "/auth/", "/marketplace/", "/callback/", "/webhook/")

Block = list[dict[str, Any]]  # crossplane's: directives, each with directive, line, args and perhaps block


@cache  # asked for by preflight and by two operations
def desired(now: Nginx, settings: Settings) -> bytes:
    """The site's text as it must be. What sites-enabled holds is what serves: it is the base where the two differ."""
    base = now.enabled.content if now.enabled.content is not None else now.available.content
    if base is None:
        if not now.certificate:
            raise BadInput(
                f"nginx: there is neither a site {settings.nginx_site} nor a certificate for {settings.domain}; "
                "run certbot first"
            )
        base = render(
            "etc/nginx/sites-available/ai-admin.app", domain=settings.domain, app_dir=settings.app_dir
        ).encode()
    file = f"/etc/nginx/sites-available/{settings.nginx_site}"
    text = marked.without(base, file)
    server = _tls_server(_parse(text), settings.domain, file)
    have = list(_locations(server["block"], _files(now.dump)))
    lacking = [path for path in PATHS if not any(_serves(args, path) for args in have)]
    return _with_block(text, server, lacking, settings, file)


def differs(now: Nginx, settings: Settings) -> bool:
    return desired(now, settings) != now.available.content or not _is_linked(now, settings)


def _is_linked(now: Nginx, settings: Settings) -> bool:
    target = posixpath.normpath(posixpath.join("/etc/nginx/sites-enabled", now.enabled.target or "."))
    return now.enabled.type == "symlink" and target == f"/etc/nginx/sites-available/{settings.nginx_site}"


def _parse(text: bytes) -> Block:
    """Without includes: those are taken from what nginx itself loaded, not from this machine."""
    with tempfile.NamedTemporaryFile(suffix=".conf") as file:
        file.write(text)
        file.flush()
        parsed = crossplane.parse(file.name, single=True, check_ctx=False, check_args=False, catch_errors=False)
    block: Block = parsed["config"][0]["parsed"]
    return block


def _tls_server(config: Block, domain: str, file: str) -> dict[str, Any]:
    for server in config:
        if server["directive"] != "server":
            continue
        words = [(each["directive"], each["args"]) for each in server["block"]]
        tls = any(name == "listen" and ("ssl" in args or args[0].endswith("443")) for name, args in words)
        if tls and any(name == "server_name" and domain in args for name, args in words):
            return server
    raise BadInput(f"nginx: {file} has no server on 443 for {domain}; run certbot first, or set domain")


def _files(dump: bytes) -> dict[str, bytes]:
    """What `nginx -T` printed, by file."""
    parts = re.split(rb"^# configuration file (.+):$\n", dump, flags=re.MULTILINE)
    return {name.decode(errors="replace"): text for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def _locations(block: Block, files: dict[str, bytes]) -> Iterator[list[str]]:
    """The arguments of each `location` of a server, those in included files too."""
    for each in block:
        if each["directive"] == "location":
            yield each["args"]
        elif each["directive"] == "include":
            pattern = posixpath.join("/etc/nginx", each["args"][0])
            for name, text in files.items():
                if fnmatch.fnmatch(name, pattern):
                    yield from _locations(_parse(text), files)


def _serves(args: list[str], path: str) -> bool:
    """Does a location with these arguments take the requests below `path`? (The last one, `/`, does not count.)"""
    if len(args) == 1 or args[0] == "^~":
        return args[-1].rstrip("/") == path.rstrip("/")
    if args[0] in ("~", "~*"):
        try:
            return re.search(args[-1], path, re.IGNORECASE if args[0] == "~*" else 0) is not None
        except re.error:
            return False
    return False


def _with_block(text: bytes, server: dict[str, Any], lacking: list[str], settings: Settings, file: str) -> bytes:
    if not lacking:
        return text
    lines = text.splitlines(keepends=True)
    close = _closing_line(text, server["line"])
    if lines[close - 1].strip() != b"}":
        raise BadInput(f"nginx: {file} line {close}: put the closing brace of the server on a line of its own")
    body = marked.indent(
        render(
            "etc/nginx/sites-available/locations", paths=lacking, port=settings.api_port, room=settings.waiting_room
        ).strip("\n"),
        "    ",
    )
    block = marked.wrap(body, "    #", marked.eol_of(text))
    return b"".join(lines[: close - 1]) + block + b"".join(lines[close - 1 :])


def _closing_line(text: bytes, start: int) -> int:
    """The line of the brace that closes the block that opens on or after line `start`."""
    depth, inside = 0, False
    with tempfile.NamedTemporaryFile(suffix=".conf") as file:
        file.write(text)
        file.flush()
        for token, line, quoted in crossplane.lex(file.name):
            inside = inside or (token == "server" and line >= start)  # the one before may end on the same line
            if quoted or not inside:
                continue
            depth += {"{": 1, "}": -1}.get(token, 0)
            if token == "}" and depth == 0:
                return int(line)
    raise AssertionError("crossplane parsed the file, so its braces match")


@operation()
def site(wanted: Wanted) -> Generator[Step]:
    now = look(host, wanted).nginx
    if not differs(now, wanted.settings):
        host.noop("nginx: the site is as it should be")
        return
    text = desired(now, wanted.settings)
    name = wanted.settings.nginx_site
    if now.available.content is None and now.enabled.content is None:
        say(host, [f"nginx: write the whole site {name}"])
    elif text != now.available.content:
        say(host, [f"nginx: our block in {name}: the locations it lacks"])
    if now.enabled.type == "file":
        other = "" if now.enabled.content == now.available.content else "; the other goes to the backups"
        say(host, [f"nginx: sites-enabled/{name} is a copy: its text is kept{other}"])
    linked = _is_linked(now, wanted.settings)
    if not linked:
        say(host, [f"nginx: sites-enabled/{name} becomes a symlink"])
    old = now.available.content
    expected = None if old is None else remote.sha256(old)
    yield Step("nginx", "writeSite", wanted, content=remote.pack(text), expected=expected, linked=linked)


@operation()
def current(wanted: Wanted) -> Generator[Step]:
    now = look(host, wanted).nginx
    if now.running and not now.stale and not differs(now, wanted.settings):
        host.noop("nginx: runs what is on disk")
        return
    say(host, ["nginx: reload" if now.running else "nginx: start, it does not run"])
    yield Step("nginx", "reloadNginx", wanted)
