"""`bin/faults --calls`: every job, killed or failed at every file-changing system call. Exit codes: 0 well, 1 not."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.crash.trial import KILLS, KINDS, Result, run
from tests.crash.works import WORKS
from tests.resilience import page

HOW = """
Each job is killed before each of its calls that change a file, once with the deploy's session there and once with
the power gone; and each call fails with EIO, ENOSPC, EROFS and EINTR, and with all later ones (ENOSPC, EROFS). Every
time each file is old or new, whole, with its mode; a new one has its backup and its note; the session puts back what
nothing has loaded; the next run heals, and leaves nothing behind. A strike after a call is the same as one before the
next: no file changes in between."""


def table(results: list[Result]) -> str:
    """By work: its calls, and the strikes that it survived of those tried."""
    rows = ["| job | calls | killed at each | each fails |", "|---|---|---|---|"]
    for name in WORKS:
        mine = [each for each in results if each.work == name]
        columns = [[each for each in mine if (each.kind in KILLS) == killed] for killed in (True, False)]
        told = " | ".join(_told(column) for column in columns)
        rows.append(
            f"| `remote.{name.replace(',', '`,', 1)}{'' if ',' in name else '`'} | {len(mine[0].calls)} | {told} |"
        )
    return "\n".join(rows)


def _told(results: list[Result]) -> str:
    tried = sum(len(each.calls) for each in results)
    wrong = sum(len(each.problems) for each in results)
    return f"{tried - wrong} of {tried}" if wrong else f"{tried}"


def main() -> int:
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for result in run([(name, kind) for name in WORKS for kind in KINDS], Path(folder)):
            results.append(result)
            sign = "✗" if result.problems else "✓"
            print(f"  {sign} {result.work}, {result.kind}: {len(result.calls)} calls", file=sys.stderr, flush=True)
            for point, problems in result.problems.items():
                print(f"      {point}: {'; '.join(problems)}", file=sys.stderr, flush=True)
    tried = sum(len(each.calls) for each in results)
    wrong = sum(len(each.problems) for each in results)
    text = f"{tried} strikes at system calls, {wrong} problems."
    print(f"{table(results)}\n\n{text}")
    page.put("Every system call", f"`bin/faults --calls`: {text}\n{HOW}\n\n{table(results)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
