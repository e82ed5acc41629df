"""The pictures in README, from a real run: `python -m tests.detection.pictures` on a rehearsal host of its own.

A host after its first deploy, without tokens, whose nginx somebody has taken from the next boot.
"""

from __future__ import annotations

import html
import os
import pty
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.detection.browser import browser
from tests.rehearsal.host import of_this_run
from tests.rehearsal.story import INVENTORY, ROOT, deploy

TABLE, REPORT = ROOT / "docs/verify.png", ROOT / "docs/report.png"
COLUMNS, LINES = 110, 60
# The colours of tests/verify/table.py, on a dark terminal.
COLOURS = {"31": "#f47067", "32": "#57ab5a", "33": "#c69026", "35": "#b083f0"}
PAGE = """<!doctype html><meta charset="utf-8"><body style="margin:0;background:#22272e">
<pre style="margin:0;padding:16px;font:14px/1.4 monospace;color:#cdd9e5">$ bin/verify\n%s</pre>"""


def on_a_terminal(*command: str) -> str:
    """What it prints on a terminal of this size."""
    pieces: list[bytes] = []

    def read(descriptor: int) -> bytes:
        pieces.append(os.read(descriptor, 65536))
        return pieces[-1]

    os.environ |= {"COLUMNS": str(COLUMNS), "LINES": str(LINES)}
    pty.spawn(command, read)
    return b"".join(pieces).decode().replace("\r\n", "\n")


def as_page(text: str) -> str:
    def coloured(match: re.Match[str]) -> str:
        return f'<span style="color:{COLOURS[match[1]]}">{match[2]}</span>'

    return PAGE % re.sub(r"\x1b\[(\d+)m(.*?)\x1b\[0m", coloured, html.escape(text, quote=False))


def main() -> None:
    host = of_this_run("picture")
    own = f"{INVENTORY} deploy.py --limit {host.name}"
    host.reset()
    try:
        done = deploy(host)
        assert done.code == 0, done.output
        host.ssh("systemctl disable -q nginx")
        with TemporaryDirectory() as scratch:
            report, table = Path(scratch, "report.html"), Path(scratch, "table.html")
            command = (sys.executable, "-m", "tests.verify", INVENTORY, "--limit", host.name, "--html", str(report))
            table.write_text(as_page(on_a_terminal(*command)), encoding="utf-8")
            with browser(Path(scratch), "MAP * ~NOTFOUND") as driver:
                for page, file, width in ((table, TABLE, 1110), (report, REPORT, 900)):
                    text = page.read_text(encoding="utf-8").replace(own, "inventory.py deploy.py")
                    page.write_text(text.replace(host.name, "ai-admin.app"), encoding="utf-8")
                    driver.open(page.as_uri())
                    driver.look(width, "light")
                    file.write_bytes(driver.whole())
                    print(file)
    finally:
        host.down()


if __name__ == "__main__":
    main()
