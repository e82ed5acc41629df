"""`.env` as the application reads it: the grammar of dotenv 17, in Python, and what the three keys hold.

tests/unit/remote/test_dotenv_grammar.py reads thousands of files with both, without one difference.
"""

import os
import re
from collections.abc import Mapping

from remote import files
from remote.readings import Key, Rules, Secrets

# What JavaScript's \s matches and its trim() removes; Python's \s has others.
SPACE = "\t\n\v\f\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_TRIM = SPACE.replace("\u2000-\u200a", "".join(map(chr, range(0x2000, 0x200B))))

# dotenv's own pattern (lib/main.js, LINE) with one group more: 1 the key, 2 separator and value, 3 the value.
LINE = (
    r"""(?:^|^)\s*(?:export\s+)?([\w.-]+)((?:\s*=\s*?|:\s+?)"""
    r"""(\s*'(?:\\'|[^'])*'|\s*"(?:\\"|[^"])*"|\s*`(?:\\`|[^`])*`|[^#\r\n]+)?)\s*(?:#.*)?(?:$|$)"""
)


def _python(pattern: str) -> str:
    """A JavaScript pattern with the flag m in Python's terms: U+2028 and U+2029 end a line, \\w is ASCII."""
    ends = "\n\r\u2028\u2029"
    for theirs, ours in (
        (r"\s", f"[{SPACE}]"),
        (r"[\w.-]", "[A-Za-z0-9_.-]"),
        (r"#.*", f"#[^{ends}]*"),
        ("(?:^|^)", f"(?:\\A|(?<=[{ends}]))"),
        ("(?:$|$)", f"(?=[{ends}]|\\Z)"),
    ):
        pattern = pattern.replace(theirs, ours)
    return pattern


_LINE = re.compile(_python(LINE))


class Assignment:
    """`start` to `end`: from the key to the end of the value. `match_start` to `match_end`: all that dotenv matches."""

    def __init__(self, match: re.Match[str]) -> None:
        self.key, self.value = match[1], _unquoted((match[3] or "").strip(_TRIM))
        self.start, self.match_start, self.match_end = match.start(1), match.start(), match.end()
        self.end = self.start + len(match.string[self.start : match.end(2)].rstrip(_TRIM))


def assignments(text: str) -> list[Assignment]:
    """In order; `text` has LF alone. Quoted values may span lines; a quote that never closes is plain text."""
    return [Assignment(match) for match in _LINE.finditer(text)]


def _unquoted(value: str) -> str:
    quote = value[:1]
    # as dotenv's own /^(['"`])([\s\S]*)\1$/mg: each line of the value, where it stands between quotes
    value = re.sub(
        r"""(?:\A|(?<=[\n\r\u2028\u2029]))(['"`])([\s\S]*)\1(?=[\n\r\u2028\u2029]|\Z)""",
        r"\2",
        value,
    )
    return value.replace(r"\n", "\n").replace(r"\r", "\r") if quote == '"' else value


def parse(text: str) -> dict[str, str]:
    """The last of several assignments counts."""
    return {each.key: each.value for each in assignments(text)}


def line_feeds(text: str) -> str:
    """With LF for CR and CRLF, as dotenv takes it."""
    return re.sub(r"\r\n?", "\n", text)


def load(path: str) -> dict[str, str]:
    """The values of a `.env`; none where there is no file."""
    return parse(line_feeds((files.read(path) or b"").decode(errors="replace")))


def is_in_source(app_dir: str, value: str) -> bool:
    """Does the value stand in the application's source? Then it is a default that everybody can read."""
    sources = (file for file in files.below(f"{app_dir}/src") if file.endswith(files.JAVASCRIPT))
    return bool(value) and any(files.content(value) in (files.read(file) or b"") for file in sources)


def _kind(key: str, value: str | None, rules: Rules, app_dir: str) -> str:
    if value is None or not value.strip():
        return "absent" if value is None else "empty"
    if re.match(rules["placeholder"], value.strip(), re.IGNORECASE):
        return "placeholder"
    if key != "JWT_SECRET":
        return "set"
    is_weak = len(value) < rules["min_jwt_secret"] or value in rules["public_defaults"]
    return "weak" if is_weak or is_in_source(app_dir, value) else "set"


def _older(path: str) -> dict[str, dict[str, str]]:
    """By deploy, oldest first: its values before that."""
    from remote import backups  # which imports us

    return {deploy: load(copy) for deploy, copy in backups.copies(path).items()}


def read(*, path: str, values: Mapping[str, str], rules: Rules) -> Secrets:
    content, app_dir = files.read(path), os.path.dirname(path)
    found = assignments(line_feeds((content or b"").decode(errors="replace")))
    now = {each.key: each.value for each in found}
    differ = {key: value for key, value in values.items() if now.get(key) != value}
    older = _older(path) if differ else {}
    keys: dict[str, Key] = {
        key: {
            "kind": _kind(key, now.get(key), rules, app_dir),
            "equal": key in values and key not in differ,
            "times": [each.key for each in found].count(key),
            "before": max(
                (deploy for deploy in older if key in differ and older[deploy].get(key) == differ[key]), default=""
            ),
        }
        for key in rules["keys"]
    }
    public = [key for key, value in values.items() if key == "JWT_SECRET" and is_in_source(app_dir, value)]
    return {"sha256": files.sha256(content), "keys": keys, "public": public}
