"""bin/verify: is the integration ready? Exit codes: 0 all ready, 1 something is broken, 2 only tokens are pending."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from settings import BadInput
from tests.verify.conftest import TABLES
from tests.verify.target import HERE, targets


class Quiet:
    """Keeps the configuration, to read the tables from when pytest is done."""

    config: pytest.Config

    def pytest_configure(self, config: pytest.Config) -> None:
        self.config = config


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/verify", description=__doc__)
    parser.add_argument("inventory", nargs="?", default="inventory.py", help="default: inventory.py, production")
    parser.add_argument("--limit", metavar="HOST", help="only this host of the inventory")
    parser.add_argument("--live", action="store_true", help="also ask YClients whether it accepts the partner token")
    arguments = parser.parse_args()
    inventory = Path(arguments.inventory)
    if not inventory.exists():
        print(f"verify: there is no inventory {inventory}", file=sys.stderr)
        return 1
    try:
        for target in targets(inventory):
            if arguments.limit in (None, target.name):
                print(f"verify: reading {target.name} …", file=sys.stderr)
    except BadInput as error:
        print(f"verify: {error}", file=sys.stderr)
        return 1
    quiet = Quiet()
    words = ["-p", "no:terminal", "-p", "no:cacheprovider", f"--rootdir={HERE}", "-c", str(HERE / "pytest.ini")]
    limit = [f"--limit={arguments.limit}"] if arguments.limit else []
    live = ["--live"] if arguments.live else []
    code = pytest.main([*words, str(HERE), f"--inventory={inventory}", *limit, *live], plugins=[quiet])
    tables = quiet.config.stash.get(TABLES, {})
    if not tables or code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        print(f"verify: no check ran (pytest: {code})", file=sys.stderr)
        return 1
    for table in tables.values():
        table.print(sys.stdout)
    codes = {table.exit_code for table in tables.values()}
    return 1 if 1 in codes else max(codes)


if __name__ == "__main__":
    sys.exit(main())
