"""docs/faults.md: one section each for what `bin/faults` tries."""

from __future__ import annotations

from datetime import UTC, datetime

from channel import bundle
from tests.rehearsal.story import ROOT

PAGE = ROOT / "docs/faults.md"
SECTION = "\n## "


def sections() -> str:
    """All but the first, each with its heading."""
    _, *found = PAGE.read_text(encoding="utf-8").split(SECTION)
    return "".join(SECTION + each for each in found)


def put(title: str, text: str) -> None:
    """Into the section of this title, or a new one at the end."""
    first, *found = PAGE.read_text(encoding="utf-8").split(SECTION)
    others = [each for each in found if not each.startswith(f"{title}\n")]
    when = f"{datetime.now(UTC).strftime('%d %B %Y')}, {bundle()}"
    PAGE.write_text(first + "".join(SECTION + each for each in [*others, f"{title}\n\n{when}. {text}\n"]))
