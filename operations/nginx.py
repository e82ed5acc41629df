"""The site's nginx configuration: a marked block in what is there, or the whole site where there is none.

The site file belongs to the operator, and certbot writes into it. It is read with crossplane; only line numbers come
from there, so every byte outside our block stays.
"""

import fnmatch
import posixpath
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import crossplane
from pyinfra.api.operation import operation
from pyinfra.context import host

import remote.nginx
from channel import Channel, Step
from facts.look import ask
from operations import marked
from operations.render import render
from remote.files import content, sha256, text
from remote.readings import Configuration
from settings import BadInput

PATHS = ("/socket.io/", "/api/", "/auth/", "/marketplace/", "/callback/", "/webhook/")

Block = list[dict[str, Any]]  # crossplane's: directives, each with directive, line, args and perhaps block


@dataclass(frozen=True)
class Site:
    """sites-available/<name>, served as `domain`, and the ports on the host that it passes requests to."""

    name: str
    domain: str
    app_dir: str
    api_port: int
    waiting_room: int


def desired(now: Configuration, site: Site) -> bytes:
    """The site's content as it must be. What sites-enabled holds is what serves: the base where the two differ."""
    available, enabled = now["available"]["content"], now["enabled"]["content"]
    base = available if enabled is None else enabled
    if base is None:
        if not now["certificate"]:
            raise BadInput(
                f"nginx: there is neither a site {site.name} nor a certificate for {site.domain}; run certbot first"
            )
        base = render("etc/nginx/sites-available/ai-admin.app", domain=site.domain, app_dir=site.app_dir)
    return _desired(content(base), content(now["dump"]), site)


@cache  # asked for by preflight and by the operation
def _desired(base: bytes, dump: bytes, site: Site) -> bytes:
    file = f"/etc/nginx/sites-available/{site.name}"
    text = marked.without(base, file)
    server = _tls_server(_parse(text), site.domain, file)
    have = list(_locations(server["block"], _files(dump)))
    lacking = [path for path in PATHS if not any(_serves(args, path) for args in have)]
    return _with_block(text, server, lacking, site, file)


def is_linked(now: Configuration, site: Site) -> bool:
    target = posixpath.normpath(posixpath.join("/etc/nginx/sites-enabled", now["enabled"]["target"] or "."))
    return now["enabled"]["type"] == "symlink" and target == f"/etc/nginx/sites-available/{site.name}"


def _parse(text: bytes) -> Block:
    """Without includes: those are taken from what nginx itself loaded, not from this machine."""
    parsed = crossplane.parse_string(
        text.decode(errors="replace"), single=True, check_ctx=False, check_args=False, catch_errors=False
    )
    block: Block = parsed["config"][0]["parsed"]
    return block


def _tls_server(config: Block, domain: str, file: str) -> dict[str, Any]:
    for server in config:
        if server["directive"] != "server":
            continue
        lines = [(each["directive"], each["args"]) for each in server["block"]]
        tls = any(name == "listen" and ("ssl" in args or args[0].endswith("443")) for name, args in lines)
        if tls and any(name == "server_name" and domain in args for name, args in lines):
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


def _with_block(text: bytes, server: dict[str, Any], lacking: list[str], site: Site, file: str) -> bytes:
    if not lacking:
        return text
    lines = text.splitlines(keepends=True)
    close = _closing_line(text, server["line"])
    if lines[close - 1].strip() != b"}":
        raise BadInput(f"nginx: {file} line {close}: put the closing brace of the server on a line of its own")
    body = marked.indent(
        render("etc/nginx/sites-available/locations", paths=lacking, port=site.api_port, room=site.waiting_room).strip(
            "\n"
        ),
        "    ",
    )
    block = marked.wrap(body, "    #", marked.eol_of(text))
    return b"".join(lines[: close - 1]) + block + b"".join(lines[close - 1 :])


def _closing_line(text: bytes, start: int) -> int:
    """The line of the brace that closes the block that opens on or after line `start`."""
    depth, inside = 0, False
    for token, line, quoted in crossplane.lex_string(text.decode(errors="replace")):
        inside = inside or (token == "server" and line >= start)  # the one before may end on the same line
        if quoted or not inside:
            continue
        depth += {"{": 1, "}": -1}.get(token, 0)
        if token == "}" and depth == 0:
            return int(line)
    raise AssertionError("crossplane parsed the file, so its braces match")


@operation()
def site(site: Site) -> Generator[Step[...]]:
    """The site has a TLS server for its domain with every location of PATHS, and sites-enabled links to it."""
    now = ask(host, remote.nginx.read, site=site.name, domain=site.domain)
    new, linked = desired(now, site), is_linked(now, site)
    available, enabled = now["available"]["content"], now["enabled"]["content"]
    old = None if available is None else content(available)
    if new == old and linked:
        host.noop("nginx: the site is as it should be")
        return
    lines = []
    if available is None and enabled is None:
        lines.append(f"nginx: write the whole site {site.name}")
    elif new != old:
        lines.append(f"nginx: our block in {site.name}: the locations it lacks")
    if now["enabled"]["type"] == "file":
        other = "" if enabled == available else "; the other goes to the backups"
        lines.append(f"nginx: sites-enabled/{site.name} is a copy: its text is kept{other}")
    if not linked:
        lines.append(f"nginx: sites-enabled/{site.name} becomes a symlink")
    Channel.of(host).say(lines, "nginx", "the site")
    yield Step(remote.nginx.write_site, site=site.name, content=text(new), expected=sha256(old), linked=linked)


@operation()
def current(site: Site, timeout: int) -> Generator[Step[...]]:
    """nginx runs what is on disk; `timeout` seconds for its new workers to come."""
    now = ask(host, remote.nginx.read, site=site.name, domain=site.domain)
    channel = Channel.of(host)
    if now["running"] and not now["stale"] and not channel.ahead("nginx"):
        host.noop("nginx: runs what is on disk")
        return
    channel.say(["nginx: reload" if now["running"] else "nginx: start, it does not run"])
    yield Step(remote.nginx.reload, timeout=timeout)
