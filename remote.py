"""How a program of ours runs on the host: JavaScript, by the application's own Node, over standard input.

Why so: Node is there (the application needs it), reads `.env` with the application's own dotenv, and speaks JSON
both ways, so that nothing has to be quoted for a shell. Program and input both come on standard input: no
secret in an argument list, and a program cut short by a lost connection is recognised and not run.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from pyinfra.api.command import QuoteString, StringCommand

HERE = Path(__file__).parent
SEPARATOR = "\n//----\n"
CUT_SHORT = 75

# Waits for program, input and the mark after them, then runs the program. Standard input may stay open (a session's
# does); a program that does not read on is not kept alive by it. No message of its own shows the input.
_BOOTSTRAP = (
    'let s = ""; process.stdin.setEncoding("utf8").on("data", (d) => { if (s === null) return; s += d; '
    'const [p, i, e] = s.split("\\n//----\\n"); if (e === undefined) return; s = null; process.stdin.unref?.(); '
    'new Function("require", "input", p)(require, JSON.parse(i)); }).on("end", () => { if (s === null) return; '
    f'console.error("the connection was cut: nothing was done"); process.exit({CUT_SHORT}); }});'
)

NODE = StringCommand("node", "-e", QuoteString(_BOOTSTRAP))


@cache
def _source(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def stdin(programs: tuple[str, ...], entry: str, data: dict[str, Any]) -> str:
    """Standard input for NODE: the files `programs` joined, then a call of the function `entry` with `data`."""
    program = "\n".join(['"use strict";', *map(_source, programs), f"{entry}(input);"])
    return SEPARATOR.join([program, json.dumps(data), ""])


def unpack(packed: str) -> bytes:
    """The bytes that `pack` of facts/look.js made: gzip, base64."""
    return gzip.decompress(base64.b64decode(packed))


def pack(content: bytes) -> str:
    """For `unpack` of operations/step.js."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
