"""Is the integration ready? Reads the host and its site, changes nothing, and ends with a table of ten components:
what was seen, and what to type.

exit codes:
  0  all ready (--drift: the host is as deploy would make it)
  1  something is broken or could not be checked; wrong usage
  2  nothing is broken, tokens are pending
  3  --drift only: the host differs from what deploy would make
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import NoReturn

from settings import BadInput
from tests.verify.target import HERE, Target, targets

LIVE_QR = """also start a WhatsApp session of this salon through the API, as its owner would, and see whether a QR
code comes. It leaves that session waiting for a scan, and may disturb a running session of the salon: for a test salon,
or one that is being connected. Never done by default. Neither the token nor the QR code leaves the host."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Not argparse's own 2: a typo is no pending token."""
        self.exit(1, f"verify: {message}; see bin/verify --help\n")


def parse() -> argparse.Namespace:
    about, _, codes = (__doc__ or "").partition("\n\n")
    parser = Parser(
        prog="bin/verify", description=about, epilog=codes, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("inventory", nargs="?", default="inventory.py", type=Path, help="default: production's")
    parser.add_argument("--limit", metavar="HOST", help="only this host of the inventory")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write everything that was checked")
    parser.add_argument("--junit", metavar="FILE", type=Path, help="also write JUnit's XML, for a CI")
    parser.add_argument("--html", metavar="FILE", type=Path, help="also write one page to send to someone")
    parser.add_argument(
        "--live", action="store_const", const=True, help="also ask YClients whether it accepts the partner token"
    )
    parser.add_argument("--live-qr", metavar="SALON_ID", type=int, help=LIVE_QR)
    parser.add_argument("--drift", action="store_true", help="instead: what would deploy change? names each difference")
    arguments = parser.parse_args()
    asked = [name for name in ("json", "junit", "html", "live", "live_qr") if getattr(arguments, name) is not None]
    if arguments.drift and asked:
        parser.error(f"--drift goes without --{asked[0].replace('_', '-')}")
    return arguments


def chosen(inventory: Path, limit: str | None) -> list[Target]:
    """Raises BadInput."""
    if not inventory.exists():
        raise BadInput(f"there is no inventory {inventory}")
    found = [target for target in targets(inventory.resolve()) if limit in (None, target.name)]
    if not found:
        raise BadInput(f"{inventory} has no host {limit or 'at all'}")
    return found


def main() -> int:
    arguments = parse()
    try:
        hosts = chosen(arguments.inventory, arguments.limit)
        if arguments.drift:
            from tests.verify import drift

            return drift.find(arguments.inventory, hosts)
        for target in hosts:
            target.start()
    except BadInput as error:
        print(f"verify: {error}", file=sys.stderr)
        return 1
    return verify(hosts, arguments)


def verify(hosts: list[Target], arguments: argparse.Namespace) -> int:
    """Run the checks while the answers come in; print the tables and write the reports."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # other people's plugins take 0.1 s
    import pytest

    from tests.verify.plugin import Verification

    live = [*(["live_token.py"] if arguments.live else []), *(["live_qr.py"] if arguments.live_qr is not None else [])]
    verification = Verification(hosts, arguments.live_qr)
    code = pytest.main(
        [
            *("-p", "no:terminal", "--assert=plain"),
            *(f"--rootdir={HERE}", "-c", str(HERE / "pytest.ini"), str(HERE)),
            *("-o", " ".join(["python_files=test_*.py", *live])),
            *([f"--junitxml={arguments.junit.resolve()}"] if arguments.junit else []),
        ],
        plugins=[verification],
    )
    tables = list(verification.tables.values())
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        print(f"verify: the checks did not run (pytest: {code!r})", file=sys.stderr)
        return 1
    for target, table in zip(hosts, tables, strict=True):
        if target.probe:
            table.print(sys.stdout)
        else:
            print(f"verify: {target.probe.why}", file=sys.stderr)
    data = [table.data() for table in tables]
    if arguments.json:
        arguments.json.write_text(json.dumps(data, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    if arguments.html:
        from tests.verify.report import page

        arguments.html.write_text(page(data), encoding="utf-8")
    codes = {table.exit_code for table in tables}
    return 1 if 1 in codes else max(codes)


if __name__ == "__main__":
    sys.exit(main())
