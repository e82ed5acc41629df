"""Two small additions to the application's source, each a marked block. What is lacking, `contract.py` reads in it."""

import re
from collections.abc import Generator, Mapping
from functools import cache

from pyinfra.api.operation import operation
from pyinfra.context import host
from tree_sitter import Node

import contract
import remote.source
from channel import Channel, Step
from contract import Contract
from facts.look import ask
from operations import marked
from operations.render import render
from remote.files import content, sha256, text
from rules import HEALTH_CHECK, KEYS, KNOWN_METHODS, MENTION, POOL_CLASS, ROUTES, SESSION_POOL
from settings import BadInput


def changes(now: Mapping[str, str | None], health_check: bool) -> dict[str, bytes]:
    """The files that must become another, with their new content. Raises BadInput where a block has no place."""
    old = {file: content(now[file] or "") for file in (ROUTES, SESSION_POOL)}
    needs = read(now)
    own = {file: marked.without(whole, file) for file, whole in old.items()}
    wanted = {ROUTES: _routes(own[ROUTES], health_check), SESSION_POOL: _pool(own[SESSION_POOL], needs)}
    return {file: new for file, new in wanted.items() if new != old[file]}


def read(now: Mapping[str, str | None]) -> Contract:
    """What the application's source needs, without what we put into it. Raises BadInput where it is not there."""
    for file in (ROUTES, SESSION_POOL):
        if now[file] is None:
            raise BadInput(f"{file} is not in the application's folder; deploy the application first")
    return _read(tuple((file, marked.without(content(whole or ""), file)) for file, whole in now.items()))


@cache  # asked for by preflight and by the operation
def _read(files: tuple[tuple[str, bytes], ...]) -> Contract:
    return contract.read(dict(files))


def _routes(text: bytes, health_check: bool) -> bytes:
    root = contract.parse(text)
    by_hand = any(node.text == HEALTH_CHECK.encode() for node in contract.nodes(root) if node.type == "string_fragment")
    if not health_check or by_hand:
        return text
    for statement in reversed(root.named_children):
        export = re.fullmatch(r"module\.exports\s*=\s*([A-Za-z_$][\w$]*)\s*;?", contract.text(statement))
        if statement.type == "expression_statement" and export and not _is_function(root, export[1]):
            block = marked.wrap(render(f"opt/ai-admin/{ROUTES}", router=export[1]), "//", marked.eol_of(text))
            line = text.rfind(b"\n", 0, statement.start_byte) + 1
            if text[line : statement.start_byte].strip():  # the block must not stand in the middle of a line
                return _at_the_end(text, block)
            return text[:line] + block + text[line:]
    raise BadInput(
        f"{ROUTES}: no `module.exports = router;` to put the health check before; "
        "add it by hand or set health_check = False"
    )


def _is_function(root: Node, name: str) -> bool:
    """One that makes a router, say: it has no `get` of its own."""
    value = contract.at_the_top(root, name)
    return value is not None and re.search("function|class", value.type) is not None


def _pool(text: bytes, needs: Contract) -> bytes:
    if not needs.members:
        raise BadInput(f"{SESSION_POOL}: no class {POOL_CLASS}; is this the application?")
    lacking = [name for name in needs.lacking if name in KNOWN_METHODS]
    if not lacking:
        return text
    if contract.at_the_top(contract.parse(text), POOL_CLASS) is None:
        raise BadInput(
            f"{SESSION_POOL}: {', '.join(lacking)} are missing, and no line outside the class knows it as "
            f"{POOL_CLASS}, so our block cannot add to it; the application's developers must add them"
        )
    maker = needs.members.get("getOrCreateSession", "createSession").replace("getOrCreateSession", "")
    if "createSession" in lacking and "createSession" in maker:
        raise BadInput(
            f"{SESSION_POOL}: createSession is missing and getOrCreateSession cannot stand in for it; "
            "the application's developers must add it"
        )
    body = render(f"opt/ai-admin/{SESSION_POOL}", lacking=lacking)
    return _at_the_end(text, marked.wrap(body, "//", marked.eol_of(text)))


def _at_the_end(text: bytes, block: bytes) -> bytes:
    return text + (b"" if text.endswith((b"\n", b"\r")) else marked.eol_of(text)) + block


@operation()
def blocks(app: str, app_dir: str, health_check: bool) -> Generator[Step[...]]:
    """`app` is the pm2 app that loads the files; without `health_check` its route is taken out again."""
    now = ask(host, remote.source.read, app_dir=app_dir, paths=[ROUTES, SESSION_POOL], mention=MENTION)
    needs, change = read(now), changes(now, health_check)
    for name in needs.lacking:
        if name not in KNOWN_METHODS:
            host.log(f"  source: {needs.calls[name]} calls {name}() on the session pool, which has no such method;")
            host.log("          deploy cannot add it, so the application's developers must")
    for route, other in needs.shadowed():
        host.log(f"  source: {other.place} answers {route.path} before {route.place} does: mount {ROUTES} first")
    for name in KEYS:
        if name not in needs.keys:
            host.log(f"  source: no file in src reads {name}; ask the application's developers which name it reads")
    if not change:
        host.noop("source: the blocks are as they should be")
        return
    old = {file: content(now[file] or "") for file in change}
    lines = []
    for file, new in change.items():
        verb = "put in" if marked.BEGIN.encode() in new else "take out"
        lines.append(f"source: {verb} our block, {len(new) - len(old[file]):+d} bytes: {file}")
    Channel.of(host).say(lines, "api", "source")
    for file, new in change.items():
        Channel.of(host).diff(file, old[file], new)
    contents = {file: text(new) for file, new in change.items()}
    expected = {file: sha256(old[file]) for file in change}
    yield Step(remote.source.write, app=app, app_dir=app_dir, contents=contents, expected=expected)
