"""How bin/test deals the tests out to its workers (pytest-xdist 3.8, `--dist loadgroup`).

A file at a time, for the tests of a file share their host. Those marked `apart` put back what they change: any worker.
"""

from __future__ import annotations

import os

import pytest

if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # gw0, gw1 …: each has hosts of its own
    os.environ["HOSTS"] = os.environ.get("HOSTS", "") + "abcdefgh"[int(worker.removeprefix("gw"))]


def pytest_itemcollected(item: pytest.Item) -> None:  # before xdist reads the groups, in pytest_collection_modifyitems
    if not item.get_closest_marker("apart"):
        item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
