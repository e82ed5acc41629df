"""What the application needs, read from its source: nothing is executed, and no list of ours can go out of date.

tree-sitter reads the text on the laptop; deploy and verification both ask here. What cannot be read this way is named
in `Contract.unread`, for what was not read must not count as fine.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

import tree_sitter_javascript
from tree_sitter import Language, Node, Parser

from rules import KEYS, MARKETPLACE, METHODS, POOL_CLASS, ROUTES, SESSION_POOL

VERBS = ("get", "post", "put", "patch", "delete", "all")
# Node 20's EventEmitter, which the pool extends
EMITTER = re.compile(
    r"on|once|off|emit|(add|remove|prepend|prependOnce)Listener|removeAllListeners|(raw)?[lL]isteners|listenerCount"
    r"|eventNames|[gs]etMaxListeners"
)
BUILT_IN = re.compile(
    r"node:.*|assert|async_hooks|buffer|child_process|cluster|crypto|dns|events|fs|http|http2|https|module|net|os|path"
    r"|perf_hooks|process|querystring|readline|stream|string_decoder|timers|tls|tty|url|util|v8|vm|worker_threads|zlib"
    r"|constants|dgram|diagnostics_channel|inspector|punycode|repl|trace_events|wasi"
)
_MAKES_POOL = re.compile(rf"[^;{{}}=]*\bgetSessionPool\(\)|new\s+([\w.]+\.)?{POOL_CLASS}\(.*\)", re.DOTALL)
_INSERT = re.compile(r'insert\s+into\s+(?:public\.)?"?companies"?\s*\(([^)]*)\)', re.IGNORECASE)
_VALUES = re.compile(r"values\s*\(((?:[^()']|'[^']*'|\([^()]*\))*)\)", re.IGNORECASE)
_VALUE = re.compile(r"(?:[^,()']|'[^']*'|\([^()]*\))+")
_CONFLICT = re.compile(r"on\s+conflict\s*\(([^)]*)\)", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    file: str  # below the application's folder
    line: int

    def __str__(self) -> str:
        return f"{self.file} line {self.line}"


@dataclass(frozen=True)
class Route:
    """`path` as Express knows it, with the prefixes of its routers; `texts` are what its handler can say."""

    verb: str
    path: str
    place: Place
    texts: tuple[str, ...]

    def answers(self, other: "Route") -> bool:
        """Would a request for `other` come here, were this the first?"""
        pattern = re.sub(r"\\?:\w+", "[^/]+", re.escape(self.path)).replace(r"\*", ".*")
        return self.verb in (other.verb, "all") and re.fullmatch(f"{pattern}/?", other.path) is not None


@dataclass(frozen=True)
class Upsert:
    """What the entry route writes into `companies`. `key` is its conflict key, empty where it has none. `literals`: by
    column, the values given in the source."""

    columns: tuple[str, ...]
    key: tuple[str, ...]
    place: Place
    literals: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Contract:
    """`calls`: the methods that the marketplace calls on the session pool, and where first. `lacking`: those of them,
    and of the requirements' four, that the pool does not have. `routes`: in the order in which Express tries them.
    `packages`: what the marketplace's sources load. `keys`: which of our keys any source reads.
    `unread`: what could not be read, in words."""

    calls: dict[str, Place] = field(default_factory=dict)
    lacking: list[str] = field(default_factory=list)
    members: dict[str, str] = field(default_factory=dict)  # of the pool, with their source
    routes: list[Route] = field(default_factory=list)
    upsert: Upsert | None = None
    packages: dict[str, Place] = field(default_factory=dict)
    keys: dict[str, Place] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)

    def shadowed(self) -> list[tuple[Route, Route]]:
        """The marketplace's routes that another router answers first, each with that router's."""
        own = [route for route in self.routes if route.place.file == ROUTES]
        first = [(route, next(each for each in self.routes if each.answers(route))) for route in own]
        return [(route, other) for route, other in first if other.place.file != ROUTES]


def read(files: Mapping[str, bytes]) -> Contract:
    """`files` by their path below the application's folder: all that speak of the marketplace or of one of our keys,
    and the pool."""
    found = Contract()
    roots = {file: parse(content) for file, content in sorted(files.items())}
    mounting = [file for file, root in roots.items() if _apps(root, "express")]
    for file, root in roots.items():
        _add_keys(found, file, root)
        if file not in (ROUTES, SESSION_POOL) and not re.search(MARKETPLACE.encode(), files[file]):
            continue
        if file not in (SESSION_POOL, *mounting):
            _add_calls(found, file, root)
        if file not in mounting:
            _add_packages(found, file, root)
    _add_members(found, roots[SESSION_POOL])
    if not mounting:
        found.unread.append("in which order the routers are mounted")
    for file in mounting:
        routes = list(_routes(file, roots, ""))
        if any(route.place.file == ROUTES for route in routes):  # else another program, which answers elsewhere
            found.routes += routes
    if not any(route.place.file == ROUTES for route in found.routes):
        found.unread.append(f"where {ROUTES} is mounted")
    found.upsert = _upsert(roots[ROUTES])
    if found.upsert is None:
        found.unread.append(f"what {ROUTES} writes into companies")
    return found


# --- the session pool


def _add_calls(found: Contract, file: str, root: Node) -> None:
    names, calls = set(), []
    for node in nodes(root):
        name, value = _binding(node)
        if name is None:
            continue
        is_module = _required(file, value) in (SESSION_POOL, SESSION_POOL.removesuffix(".js"))
        if _MAKES_POOL.fullmatch(text(value)) or (name.type == "identifier" and is_module):
            names.add(text(name))
            calls += [(text(at), at) for at in nodes(name) if at.type == "shorthand_property_identifier_pattern"]
    for node in nodes(root):
        function = node.child_by_field_name("function") if node.type == "call_expression" else None
        if function is None or function.type != "member_expression":
            continue
        owner = text(function.child_by_field_name("object"))
        owner = owner[1:-1] if owner.startswith("(") else owner
        if owner in names or _MAKES_POOL.fullmatch(owner):
            calls.append((text(function.child_by_field_name("property")), function))
    for method, node in calls:
        found.calls.setdefault(method, Place(file, node.start_point.row + 1))
    found.calls.pop("getSessionPool", None)  # the module's own, where that is loaded whole
    if not calls and posixpath.basename(SESSION_POOL).removesuffix(".js") in text(root):
        found.unread.append(f"what {file} calls on the session pool")


def _add_members(found: Contract, root: Node) -> None:
    pool = next((node for node in nodes(root) if node.type in ("class_declaration", "class") and _is_pool(node)), None)
    if pool is None:
        found.unread.append(f"{SESSION_POOL}: no class {POOL_CLASS}")
        return
    members = [*body.named_children] if (body := pool.child_by_field_name("body")) is not None else []
    for node in nodes(root):
        name, value = _binding(node)
        if name is not None and text(name).startswith(f"{POOL_CLASS}.prototype."):
            found.members[text(name).rpartition(".")[2]] = text(value)
        if text(node.child_by_field_name("function")) == "Object.assign":
            arguments = node.child_by_field_name("arguments")
            target, *sources = arguments.named_children if arguments is not None else [node]
            if text(target) == f"{POOL_CLASS}.prototype":
                members += [each for source in sources for each in source.named_children]
    found.members.update((_member(node), text(node)) for node in members)
    parent = next((text(each) for each in pool.named_children if each.type == "class_heritage"), "")
    emits = parent.endswith("EventEmitter")
    wanted = dict.fromkeys([*METHODS, *found.calls])
    found.lacking = [name for name in wanted if name not in found.members and not (emits and EMITTER.fullmatch(name))]
    if parent and not emits:
        found.unread.append(f"what {POOL_CLASS} inherits ({parent})")


def _is_pool(node: Node) -> bool:
    bound = None if node.parent is None else _binding(node.parent)[0]
    return POOL_CLASS in (text(node.child_by_field_name("name")), text(bound))


def _member(node: Node) -> str:
    """The name of a method or a field; a static one is not on the pool."""
    name = next((at for key in ("name", "property", "key") if (at := node.child_by_field_name(key)) is not None), None)
    is_static = any(child.type == "static" for child in node.children)
    return "" if is_static else text(name)


# --- routes


def _apps(root: Node, maker: str) -> set[str]:
    """The names of what `express()`, or `express.Router()`, made."""
    made = re.compile(r"express\(\)" if maker == "express" else r".*\b(Router|express)\(.*\)", re.DOTALL)
    bindings = [_binding(node) for node in nodes(root)]
    return {text(name) for name, value in bindings if name is not None and made.fullmatch(text(value))}


def _routes(file: str, roots: Mapping[str, Node], prefix: str, above: tuple[str, ...] = ()) -> Iterator[Route]:
    root = roots[file]
    routers = _apps(root, "Router")
    required = {text(name): _required(file, value) for name, value in map(_binding, nodes(root)) if name is not None}
    for node in nodes(root):
        function = node.child_by_field_name("function") if node.type == "call_expression" else None
        arguments = node.child_by_field_name("arguments")
        if function is None or arguments is None or text(function.child_by_field_name("object")) not in routers:
            continue
        verb, given = text(function.child_by_field_name("property")), arguments.named_children
        paths = _paths(given[0]) if given else []
        if verb == "use":
            for each in given:
                target = required.get(text(each)) or _required(file, each)
                source = next((name for name in roots if target in (name, name.removesuffix(".js"))), None)
                source = source or next((name for name in roots if name == f"{target}/index.js"), None)
                if source and source not in (file, *above):
                    for path in paths or [""]:
                        yield from _routes(source, roots, _joined(prefix, path), (*above, file))
        elif verb in VERBS:
            texts = tuple(said for each in given[1:] for said in _strings(each))
            place = Place(file, node.start_point.row + 1)
            yield from (Route(verb, _joined(prefix, path), place, texts) for path in paths)


def _paths(node: Node) -> list[str]:
    if node.type == "array":
        return [path for each in node.named_children for path in _paths(each)]
    return list(_strings(node))[:1] if node.type in ("string", "template_string") else []


def _joined(prefix: str, path: str) -> str:
    return "/" + "/".join(part for part in (prefix.strip("/"), path.strip("/")) if part)


def _required(file: str, node: Node | None) -> str:
    """The file, below the application's folder and perhaps without its ending, that `require('./…')` names."""
    found = re.fullmatch(r"""require\(\s*['"`](\.[^'"`]*)['"`]\s*\)""", text(node))
    return posixpath.normpath(posixpath.join(posixpath.dirname(file), found[1])) if found else ""


def _add_packages(found: Contract, file: str, root: Node) -> None:
    for node in nodes(root):
        is_call = node.type == "call_expression" and text(node.child_by_field_name("function")) in ("require", "import")
        source = node.child_by_field_name("arguments" if is_call else "source")
        if is_call and source is not None:
            source = next(iter(source.named_children), None)
        if source is None or source.type != "string" or _is_tried(node):
            continue
        for name in list(_strings(source))[:1]:
            package = "/".join(name.split("/")[: 2 if name.startswith("@") else 1])
            if package and package[0] not in "./#" and not BUILT_IN.fullmatch(package):
                found.packages.setdefault(package, Place(file, node.start_point.row + 1))


def _add_keys(found: Contract, file: str, root: Node) -> None:
    """`process.env.KEY` in any form. To ask only whether it is set, as a health check does, is not to read it."""
    for node in nodes(root):
        names_key = node.type in ("property_identifier", "shorthand_property_identifier_pattern", "string_fragment")
        if names_key and text(node) in KEYS:
            around = node.parent.parent if node.parent is not None else None
            is_asked = around is not None and around.type == "unary_expression" and text(around).startswith("!")
            if not is_asked:
                found.keys.setdefault(text(node), Place(file, node.start_point.row + 1))


def _is_tried(node: Node | None) -> bool:
    """In a `try`: the application can do without it."""
    return node is not None and (node.type == "try_statement" or _is_tried(node.parent))


# --- the table


def _upsert(root: Node) -> Upsert | None:
    """An SQL text, or supabase's `.from('companies').upsert({…}, { onConflict: '…' })`."""
    for node in nodes(root):
        place = Place(ROUTES, node.start_point.row + 1)
        whole = text(node)
        if node.type in ("string", "template_string") and (insert := _INSERT.search(whole)):
            conflict, values = _CONFLICT.search(whole), _VALUES.search(whole)
            pieces, names = _VALUE.findall(values[1]) if values else [], _words(insert[1])
            pairs = zip(names, pieces if len(pieces) == len(names) else (), strict=False)
            texts = {name: said[1] for name, each in pairs if (said := re.fullmatch(r"\s*'([^']*)'\s*", each))}
            return Upsert(names, _words(conflict[1]) if conflict else (), place, texts)
        function = node.child_by_field_name("function") if node.type == "call_expression" else None
        if function is not None and re.search(
            r"""from\(\s*['"`]companies['"`]\s*\)\s*\.(upsert|insert)$""", text(function)
        ):
            arguments = node.child_by_field_name("arguments")
            given = arguments.named_children if arguments is not None else []
            columns = _keys(root, given[0]) if given else None
            if columns:
                literals = dict(_literals(root, given[0]))
                key = re.search(r"""onConflict:\s*['"`]([^'"`]*)['"`]""", text(given[1]) if len(given) > 1 else "")
                return Upsert(columns, _words(key[1]) if key else (), place, literals)
    return None


def _value(root: Node, node: Node) -> Node:
    """What a name stands for, where it was declared with it; else the node itself."""
    if node.type != "identifier":
        return node
    named = [value for name, value in map(_binding, nodes(root)) if name is not None and text(name) == text(node)]
    return named[0] if named and named[0] is not None else node


def _object(root: Node, node: Node) -> Node:
    """An object, or the first in a list."""
    node = _value(root, node)
    return _value(root, node.named_children[0]) if node.type == "array" and node.named_children else node


def _literals(root: Node, node: Node) -> Iterator[tuple[str, str]]:
    for each in _object(root, node).named_children:
        value = each.child_by_field_name("value")
        if value is not None and value.type == "string":
            yield text(each.child_by_field_name("key")).strip("'\""), text(value)[1:-1]


def _keys(root: Node, node: Node) -> tuple[str, ...] | None:
    """Of an object; None where they are not all there to be read."""
    node = _object(root, node)
    if node.type != "object":
        return None
    names = []
    for each in node.named_children:
        if each.type == "pair":
            names.append(text(each.child_by_field_name("key")).strip("'\""))
        elif each.type == "shorthand_property_identifier":
            names.append(text(each))
        elif each.type != "comment":
            return None
    return tuple(names)


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text))


# --- the syntax tree


def at_the_top(root: Node, name: str) -> Node | None:
    """What the name stands for, where all of the file knows it: the declaration, or the value it is given."""
    for statement in root.named_children:
        declared = statement.child_by_field_name("declaration") if statement.type == "export_statement" else statement
        for node in () if declared is None else (declared, *declared.named_children):
            value = _binding(node)[1] or node
            if text(node.child_by_field_name("name")) == name:
                return value
    return None


@cache
def parse(content: bytes) -> Node:
    return Parser(Language(tree_sitter_javascript.language())).parse(content).root_node


@cache
def nodes(node: Node) -> list[Node]:
    """It, and all below it, in the order of the text."""
    found, waiting = [], [node]
    while waiting:
        found.append(waiting.pop())
        waiting += reversed(found[-1].named_children)
    return found


def text(node: Node | None) -> str:
    return "" if node is None else (node.text or b"").decode(errors="replace")


def _binding(node: Node) -> tuple[Node | None, Node | None]:
    """`const name = value`, `name = value` or `name ??= value`."""
    if node.type == "variable_declarator":
        return node.child_by_field_name("name"), node.child_by_field_name("value")
    if node.type in ("assignment_expression", "augmented_assignment_expression"):
        return node.child_by_field_name("left"), node.child_by_field_name("right")
    return None, None


def _strings(node: Node) -> Iterator[str]:
    """The literal pieces of all texts in it."""
    return (text(each) for each in nodes(node) if each.type == "string_fragment")
