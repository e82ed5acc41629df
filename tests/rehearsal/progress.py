"""One line per step: what runs, and how long it took. Written to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def step(title: str) -> Iterator[None]:
    started = time.monotonic()
    terminal = sys.stderr.isatty()
    if terminal:
        print(f"  … {title}", end="\r", file=sys.stderr, flush=True)
    yield
    print(f"  ✓ {title:<62} {time.monotonic() - started:5.1f} s", file=sys.stderr, flush=True)
