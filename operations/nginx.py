"""The site's nginx configuration: marked blocks in the file that serves it, or the whole site where nothing does.

The file belongs to the operator, and certbot writes into it. Only line numbers come from its parser, so every byte
outside our blocks stays, but for the address in a `proxy_pass` to the API, which a comment keeps.
"""

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import dropwhile

import crossplane
from pyinfra.api.operation import operation
from pyinfra.context import host

import remote.nginx
from channel import Channel, Step
from facts.look import ask
from operations import marked, routing
from operations.render import render
from operations.routing import ETC, Directive, Levels
from remote import waiting_room
from remote.files import content, sha256, text
from remote.readings import Configuration
from settings import BadInput

SOCKET = "/socket.io/"
PATHS = (SOCKET, "/api/", "/auth/", "/marketplace/", "/callback/", "/webhook/")
TO_API = "http://$ai_admin_api"  # the API, or its waiting room while it restarts
WAS = " # ai-admin-deploy: was "
# The headers that a WebSocket needs nginx to pass on: what we write, and what any right value has, if not a variable.
UPGRADE = {"upgrade": ("Upgrade $http_upgrade", "websocket"), "connection": ('Connection "upgrade"', "upgrade")}


@dataclass(frozen=True)
class Site:
    """sites-available/<name>, written where nothing serves `domain` yet. `change_proxy_pass`: requests that locations
    of the operator's pass to the API wait too while it restarts."""

    name: str
    domain: str
    app_dir: str
    api_port: int
    change_proxy_pass: bool


@dataclass(frozen=True)
class Change:
    """`file`, which has `old`, becomes `new`; `link`, if any, becomes a symlink to it, in the place of `replaced`."""

    file: str
    old: bytes | None
    new: bytes
    link: str
    replaced: bytes | None
    lines: Sequence[str]  # of the plan


@dataclass(frozen=True)
class Addition:
    """`body` is to be the last, or the `first`, in the block that `directive` opens; `line` says so in the plan."""

    directive: Directive
    body: str
    line: str
    first: bool = False


def desired(now: Configuration, site: Site) -> Change | None:
    """What must change in the file that serves the domain; None when nothing. Raises BadInput."""
    enabled = f"{ETC}/sites-enabled/{site.name}"
    files = loaded = routing.files_of(content(now["dump"]))
    root = routing.parse(loaded)
    if enabled not in loaded and not routing.named(root, site.domain):
        if server := routing.stands_in(root, site.domain, site.api_port):
            raise BadInput(
                f"nginx: the server in {server.file} line {server.line} answers for {site.domain} without naming it; "
                f"put {site.domain} into its server_name: another server with that name would take the domain from it"
            )
        files = {**loaded, enabled: _not_served_yet(now, site)}
        if enabled not in routing.parse(files).files():
            include = f"include {ETC}/sites-enabled/*;"
            raise BadInput(f"nginx: nginx.conf does not load {enabled}; put `{include}` into its http block")
    wanted, lines = _wanted(tuple(files.items()), site)
    unlinked = enabled in wanted and enabled not in now["links"]
    changed = [file for file, new in wanted.items() if new != loaded.get(file) or (unlinked and file == enabled)]
    if len(changed) > 1:
        where = " and ".join(sorted(changed))
        raise BadInput(f"nginx: {where} serve {site.domain}, at different addresses; put both into one file")
    if not changed:
        return None
    if unlinked:
        available = None if now["available"] is None else content(now["available"])
        return _linked(site, available, loaded.get(enabled), wanted[enabled], lines)
    file = changed[0]
    real = now["links"].get(file, file)
    if not real.startswith(f"{ETC}/"):
        only = f"only what is below {ETC} can be rolled back"
        raise BadInput(f"nginx: {real} serves {site.domain}, but {only}; move it there")
    return Change(file, loaded[file], wanted[file], "", None, lines)


def _linked(site: Site, available: bytes | None, enabled: bytes | None, new: bytes, lines: list[str]) -> Change:
    """sites-available gets the text, and sites-enabled a link to it: what may be there is a copy."""
    if available is None and enabled is None:
        lines = [f"nginx: write the whole site {site.name}", *lines]
    if enabled is not None:
        other = "" if enabled == available else "; the other goes to the backups"
        lines = [*lines, f"nginx: sites-enabled/{site.name} is a copy: its text is kept{other}"]
    lines = [*lines, f"nginx: sites-enabled/{site.name} becomes a symlink"]
    file, link = f"{ETC}/sites-available/{site.name}", f"{ETC}/sites-enabled/{site.name}"
    return Change(file, available, new, link, enabled, lines)


def without(text: bytes, file: str) -> bytes:
    """The text without what is ours. Raises BadInput for half a block."""
    return re.sub(rb"%b(.*)%b(\S+)" % (re.escape(TO_API.encode()), WAS.encode()), rb"\2\1", marked.without(text, file))


def _bare(text: bytes, servers: Sequence[Directive]) -> bytes:
    """The text without our lines in these servers: those elsewhere may be another application's."""
    lines = text.splitlines(keepends=True)
    without(text, servers[0].file)  # names the line of half a block
    for server in sorted(servers, key=lambda each: -each.line):  # the last first: the others' numbers stay right
        inside = slice(server.line - 1, _closing_line(text, server))
        lines[inside] = [without(b"".join(lines[inside]), server.file)]
    return b"".join(lines)


@cache  # asked for by preflight and by the operation
def _wanted(loaded: tuple[tuple[str, bytes], ...], site: Site) -> tuple[dict[str, bytes], list[str]]:
    """The files that serve the domain, as they must be, and what is new in them. Raises BadInput."""
    files = dict(loaded)
    servers = [levels[-1] for levels in _serving(files, site)]
    own = {server.file: files[server.file] for server in servers}
    bare = {file: _bare(text, [each for each in servers if each.file == file]) for file, text in own.items()}
    files = {**files, **bare}
    additions: list[Addition] = []
    passing: dict[int, Directive] = {}  # by line
    for levels in _serving(files, site):
        # one file at a time is changed: that of a second server may have all that it needs
        holds = len(own) == 1 and _can_hold(levels, bare)
        found = [each for each in _passing(levels, site) if each.file in bare and _address(bare[each.file], each)]
        found = found if holds and site.change_proxy_pass else []
        passing |= {each.line: each for each in found}
        additions += _additions(levels, site, holds, bool(found))
    for each in additions:
        if each.directive.file not in own:  # others may include it too
            body = " ".join(each.body.split("\n"))
            raise BadInput(f"nginx: {each.directive.place}: this location lacks the upgrade; put into it: {body}")
    wanted = {
        file: _with(_through_the_room(text, passing), file, [each for each in additions if each.directive.file == file])
        for file, text in bare.items()
    }
    was = {file: _stripped(text(whole)) for file, whole in own.items()}
    lines = [each.line for each in additions if _stripped(each.body) not in was[each.directive.file]]
    for number, passed in passing.items():
        line = _through_the_room(bare[passed.file], {number: passed}).splitlines()[number - 1]
        if line not in own[passed.file].splitlines():
            lines.append(f"nginx: {passed.place}: `proxy_pass {passed.args[0]}` becomes {TO_API}")
    gone = [file for file in own if wanted[file] == bare[file] != own[file]]
    lines += [f"nginx: our block in {file} is removed: the site no longer needs it" for file in gone]
    lines = lines or [f"nginx: our block in {file} is rewritten" for file in own if wanted[file] != own[file]]
    return wanted, [*lines, *_passed_over(files, site)]


def _stripped(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def _not_served_yet(now: Configuration, site: Site) -> bytes:
    """The site that is there and not enabled, else the whole one."""
    if now["available"] is not None:
        return content(now["available"])
    if now["certificate"]:
        whole = render("etc/nginx/sites-available/ai-admin.app", domain=site.domain, app_dir=site.app_dir)
        return whole.encode()
    raise BadInput(f"nginx: there is neither a site {site.name} nor a certificate for {site.domain}; run certbot first")


def _serving(files: Mapping[str, bytes], site: Site) -> list[Levels]:
    """The servers that answer for the domain on 443. Raises BadInput where there is none."""
    root = routing.parse(files)
    if servers := list(dict.fromkeys(routing.serving(root, site.domain).values())):
        return servers
    names = [server.file for _, server in routing.named(root, site.domain)]
    file = names[0] if names else f"{ETC}/sites-enabled/{site.name}"
    raise BadInput(f"nginx: {file} has no server on 443 for {site.domain}; run certbot first, or set domain")


def _passed_over(files: Mapping[str, bytes], site: Site) -> list[str]:
    """Servers with the same name that never answer: nginx warns of a "conflicting server name"."""
    root = routing.parse(files)
    answering = set(routing.serving(root, site.domain).values())
    idle = [levels[-1] for levels in routing.named(root, site.domain) if levels not in answering]
    return [
        f"nginx: {server.place} also has the name {site.domain}, but nginx uses the first one that does; left as it is"
        for server in idle
        if any(routing.addresses(server))
    ]


# --- what a server lacks


def _additions(levels: Levels, site: Site, holds: bool, others: bool) -> Iterator[Addition]:
    """`holds`: requests wait while the API restarts; `others`: those of locations of the operator's too.

    Raises BadInput where these leave no place.
    """
    server, lacking = levels[-1], []
    for path in PATHS:
        probe = path if path == SOCKET else f"{path}any"
        taken = routing.take(levels, probe)
        passing = routing.fallback(taken)
        passes = routing.passes_to(passing, probe, site.api_port)
        is_meant = taken != levels and routing.is_meant(taken[-1], path)
        same = [each for each in server.all("location") if routing.matcher(each) in (("", path), ("^~", path))]
        upgrade, wrong = _upgrade(passing) if passes and path == SOCKET else ([], [])
        where = taken[-1].place
        if passes and not upgrade:
            continue
        if path != SOCKET:
            lacking += [] if is_meant or same else [path]  # the operator knows where these go
        elif is_meant and not passes:
            to = f"does not pass {path} to the API on port {site.api_port}"
            raise BadInput(f"nginx: {where}: this location {to}; correct or remove it")
        elif is_meant and wrong:
            bad = _as_text(wrong[0])
            raise BadInput(f"nginx: {wrong[0].place}: `{bad}` keeps WebSockets out of {path}; remove this line")
        elif is_meant:
            body = "\n".join(upgrade)
            yield Addition(passing[-1], body, f"nginx: {where}: our block in this location: {' '.join(upgrade)}")
        elif same:
            raise BadInput(f"nginx: {where} takes {path} before {same[0].place}; write there: location ^~ {path}")
        else:
            lacking.append(path)
    if holds and (lacking or others):
        places = {"sign": waiting_room.SIGN, "socket": waiting_room.SOCKET}
        room = {name: place.format(port=site.api_port) for name, place in places.items()}
        what = "requests wait while the API restarts"
        # before the server's own `rewrite … last`, or one with `break`, which would skip it
        body = render("etc/nginx/sites-available/waiting_room", port=site.api_port, **room)
        yield Addition(server, body, f"nginx: our block in {server.file}: {what}", first=True)
    if lacking:
        # `^~`: else a `location ~ \.js$` would take /socket.io/socket.io.js. But one for that very path is meant to.
        safe = {path: not any(routing.is_meant(each, path) for each in server.all("location")) for path in lacking}
        to = TO_API if holds else f"http://127.0.0.1:{site.api_port}"
        body = render("etc/nginx/sites-available/locations", paths=safe, to=to)
        yield Addition(server, body, f"nginx: our block in {server.file}: the locations it lacks: {' '.join(lacking)}")


def _can_hold(levels: Levels, own: Mapping[str, bytes]) -> bool:
    """Can the server say where requests wait? Its first line must be free for it; and nginx must look for the sign at
    each request: with open_file_cache it takes what it saw a minute ago (1.26)."""
    cache = routing.in_force(levels, "open_file_cache")
    is_cached = bool(cache) and list(cache[0].args) != ["off"]
    return not is_cached and bool(_opening_line(own[levels[-1].file], levels[-1]))


def _passing(levels: Levels, site: Site) -> Iterator[Directive]:
    """The operator's `proxy_pass` to the API that mean the same with a variable in them: no path, a Host set, and no
    `proxy_redirect default`, which nginx then refuses."""
    api = rf"http://(localhost|127\.0\.0\.1|\[::1\]):{site.api_port}"
    for each in levels[-1].block:
        yield from _passing((*levels, each), site)
        if each.name == "proxy_pass" and re.fullmatch(api, each.args[0]):
            headers = routing.in_force(levels, "proxy_set_header")
            redirects = [redirect.args[0] for redirect in routing.in_force(levels, "proxy_redirect")]
            if any(header.args[0].lower() == "host" for header in headers) and "default" not in redirects:
                yield each


def _upgrade(levels: Levels) -> tuple[list[str], list[Directive]]:
    """The lines that the location lacks to pass the upgrade to WebSocket, and its own that stand in their way."""
    location, lines, wrong = levels[-1], [], []
    if [each.args[0] for each in routing.in_force(levels, "proxy_http_version")] != ["1.1"]:
        lines.append("proxy_http_version 1.1;")
        wrong += location.all("proxy_http_version")
    headers, own = routing.in_force(levels, "proxy_set_header"), location.all("proxy_set_header")
    values = {each.args[0].lower(): each.args[1].lower() for each in headers}
    lacking = [name for name, (_, word) in UPGRADE.items() if not re.search(rf"\$|{word}", values.get(name, ""))]
    wrong += [each for each in own if each.args[0].lower() in lacking]
    if lacking and not own:  # the first of its own ends what it inherits
        lines += [_as_text(each) for each in headers if each.args[0].lower() not in lacking]
    return [*lines, *(f"proxy_set_header {UPGRADE[name][0]};" for name in lacking)], wrong


def _as_text(directive: Directive) -> str:
    built: str = crossplane.build([{"directive": directive.name, "args": directive.args}])
    return built


# --- into the text


def _address(text: bytes, directive: Directive) -> re.Match[bytes] | None:
    """Where the line of this `proxy_pass` has its address; None where it has several, or a part of it."""
    line = text.splitlines()[directive.line - 1]
    found = [*re.finditer(rb"\bproxy_pass\s+(%b)\s*;" % re.escape(directive.args[0].encode()), line)]
    return found[0] if len(found) == 1 else None


def _through_the_room(text: bytes, passing: Mapping[int, Directive]) -> bytes:
    """With these lines changed."""
    lines = text.splitlines(keepends=True)
    for number, each in passing.items():
        if found := _address(text, each):
            line = lines[number - 1].rstrip(b"\r\n")
            start, end = found.span(1)
            new = b"%b%b%b%b%b" % (line[:start], TO_API.encode(), line[end:], WAS.encode(), found[1])
            lines[number - 1] = lines[number - 1].replace(line, new)
    return b"".join(lines)


def _with(text: bytes, file: str, additions: Sequence[Addition]) -> bytes:
    lines = text.splitlines(keepends=True)
    places = [
        (_opening_line(text, each.directive) if each.first else _closing_line(text, each.directive), each)
        for each in additions
    ]
    for number, each in sorted(places, key=lambda place: -place[0]):  # the last first: the others' numbers stay right
        brace = lines[number - 1]
        if not each.first and brace.strip() != b"}":
            name = each.directive.name
            raise BadInput(f"nginx: {file} line {number}: put the closing brace of the {name} on a line of its own")
        indent = re.match(rb"\s*", brace)[0].decode() + "    "  # type: ignore[index]  # it matches anything
        block = marked.wrap(marked.indent(each.body.strip("\n"), indent), f"{indent}#", marked.eol_of(text))
        lines.insert(number if each.first else number - 1, block)
    return b"".join(lines)


def _opening_line(text: bytes, directive: Directive) -> int:
    """The line of the brace that opens the directive's block; 0 where something follows it there."""
    tokens = _tokens(text, directive)
    number = next(line for token, line, is_quoted in tokens if token == "{" and not is_quoted)
    following = next((line for token, line, _ in tokens if not token.startswith("#")), 0)
    return 0 if following == number else int(number)


def _closing_line(text: bytes, directive: Directive) -> int:
    """The line of the brace that closes the directive's block."""
    depth = 0
    for token, line, is_quoted in _tokens(text, directive):
        depth += 0 if is_quoted else {"{": 1, "}": -1}.get(token, 0)
        if token == "}" and depth == 0:
            return int(line)
    raise AssertionError("crossplane parsed the file, so its braces match")


def _tokens(text: bytes, directive: Directive) -> Iterator[tuple[str, int, bool]]:
    """From the directive on; the one before it may end on the same line. Each with its line, and if quoted."""
    return dropwhile(lambda each: each[2] or each[0] != directive.name or each[1] < directive.line, _lexed(text))


@cache
def _lexed(text: bytes) -> list[tuple[str, int, bool]]:
    return list(crossplane.lex_string(text.decode(errors="replace")))


# --- operations


@operation()
def site(site: Site) -> Generator[Step[...]]:
    """The server that answers for the site's domain on 443 passes every path of PATHS to the API, with upgrade."""
    change = desired(ask(host, remote.nginx.read, site=site.name, domain=site.domain), site)
    if change is None:
        host.noop("nginx: the site is as it should be")
        return
    Channel.of(host).say([*change.lines], "nginx", "the site")
    Channel.of(host).diff(change.file, change.old or b"", change.new)
    yield Step(
        remote.nginx.write_site,
        file=change.file,
        content=text(change.new),
        expected=sha256(change.old),
        link=change.link,
        replaced=sha256(change.replaced),
    )


@operation()
def current(site: Site, timeout: int) -> Generator[Step[...]]:
    """nginx runs what is on disk; `timeout` seconds for its new workers to come."""
    now = ask(host, remote.nginx.read, site=site.name, domain=site.domain)
    channel = Channel.of(host)
    if now["running"] and not now["stale"] and not channel.ahead("nginx"):
        host.noop("nginx: runs what is on disk")
        return
    channel.say(["nginx: reload" if now["running"] else "nginx: start, it is down"])
    yield Step(remote.nginx.reload, timeout=timeout)
