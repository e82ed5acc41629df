"""bin/faults: every fault on real hosts, two at a time. It goes on where it stopped; the table goes to docs/faults.md.

Exit codes: 0 all survived and healed, 1 not.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import Queue

from channel import bundle
from tests.crash.__main__ import main as calls
from tests.rehearsal.host import STATE, Host, of_this_run
from tests.rehearsal.image import HERE as REHEARSAL
from tests.rehearsal.image import digest
from tests.resilience import page
from tests.resilience.faults import STEPS, Fault, every, fresh_tokens
from tests.resilience.guardian import main as guardian
from tests.resilience.world import World

ROOT = REHEARSAL.parent.parent
TABLE = ROOT / "docs/faults.md"


@dataclass(frozen=True)
class Outcome:
    """`survived` and `healed` hold what was wrong; empty is well."""

    name: str
    survived: list[str]
    healed: list[str]
    seconds: float


def try_fault(fault: Fault, world: World) -> Outcome:
    """The fault strikes a prepared host; then the invariants; then it is fixed, and must heal."""
    started = time.monotonic()
    environment = fresh_tokens(fault.scenario)
    survived: list[str] = []
    try:
        fault.strike(world, environment)
    except AssertionError as error:
        survived.append(str(error))
    if fault.answers:
        survived += world.problems()
    fault.fix(world)
    healed = world.heal(environment)
    return Outcome(fault.name, survived, healed, round(time.monotonic() - started, 1))


def prepare(fault: Fault, host: Host, soiled: bool) -> World:
    """A pristine host for a first deploy; a converged one for a token, which the fault before may have left."""
    if fault.scenario == "first" or soiled or not host.is_up:
        host.reset()
        if fault.scenario == "token":
            done = World(host).deploy({})
            assert done.code == 0, done.output[-600:]
    return World(host)


def run(faults: list[Fault], names: tuple[str, ...], book: Path) -> list[Outcome]:
    """All of them, each name a host; what the book has already is not tried again."""
    known = [Outcome(**json.loads(line)) for line in book.read_text().splitlines()] if book.exists() else []
    done = {outcome.name: outcome for outcome in known if not outcome.survived and not outcome.healed}
    todo: Queue[Fault] = Queue()
    for fault in sorted(faults, key=lambda fault: fault.scenario != "token"):
        if fault.name not in done:
            todo.put(fault)
    total = todo.qsize()

    def work(name: str) -> None:
        host, soiled = of_this_run(name), True
        while not todo.empty():
            fault = todo.get()
            try:
                outcome = try_fault(fault, prepare(fault, host, soiled))
            except Exception as error:  # a broken harness is a failed fault, not a lost one
                outcome = Outcome(fault.name, [f"{type(error).__name__}: {error}"], [], 0.0)
            done[fault.name] = outcome
            soiled = bool(outcome.survived or outcome.healed) or fault.scenario == "first" or "full" in fault.name
            with book.open("a") as pages:
                pages.write(json.dumps(asdict(outcome)) + "\n")
            sign = "✗" if outcome.survived or outcome.healed else "✓"
            print(
                f"  {sign} {total - todo.qsize():>3}/{total} {fault.name:<62} {outcome.seconds:5.1f} s",
                file=sys.stderr,
                flush=True,
            )
            for problem in [*outcome.survived, *outcome.healed]:
                print(f"        {problem}", file=sys.stderr, flush=True)
        host.down()

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(work, names))
    return [done[fault.name] for fault in faults if fault.name in done]


def table(outcomes: list[Outcome]) -> str:
    """By kind: tried, survived, healed."""
    kinds: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        head, _, tail = outcome.name.partition(": ")
        kind = f"{head.split(',')[0]}, each of its steps: {tail}" if tail else outcome.name
        kinds.setdefault(kind, []).append(outcome)
    rows = ["| fault | tried | survived | healed by the next run |", "|---|---|---|---|"]
    for kind, found in [*kinds.items(), ("**all**", outcomes)]:
        survived = sum(not outcome.survived for outcome in found)
        healed = sum(not outcome.healed for outcome in found)
        rows.append(f"| {kind} | {len(found)} | {survived} | {healed} |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/faults", description=__doc__)
    parser.add_argument("-k", default="", metavar="TEXT", help="only faults with this text in their name")
    parser.add_argument("--calls", action="store_true", help="only the strikes at every system call: no host")
    parser.add_argument(
        "--guardian", action="store_true", help="only how soon the host puts right what a dead client left"
    )
    arguments = parser.parse_args()
    if arguments.calls or arguments.guardian:
        return calls() if arguments.calls else guardian()
    code = ("facts", "operations", "remote", "templates", "files", "group_data", "tests/rehearsal", "tests/resilience")
    recipe = digest(*(ROOT / name for name in code), *sorted(ROOT.glob("*.py")))
    code_name = bundle()
    book = STATE / f"faults-{recipe}.jsonl"
    STATE.mkdir(parents=True, exist_ok=True)
    faults = [fault for fault in every() if arguments.k in fault.name]
    outcomes = run(faults, ("fault3", "fault4"), book)
    text = table(outcomes)
    print(text)
    well = all(not outcome.survived and not outcome.healed for outcome in outcomes)
    tried = f"{len(outcomes)} faults tried, {'100% survived and healed' if well else 'NOT all survived and healed'}"
    print(f"\n{tried}")
    if not arguments.k:
        TABLE.parent.mkdir(exist_ok=True)
        day = datetime.now(UTC).strftime("%d %B %Y")
        steps = f"A first deploy has {STEPS['first']} remote steps, one for a token {STEPS['token']}."
        TABLE.write_text(
            f"# Faults\n\n{tried}: {day}, `bin/faults` of {code_name} on two rehearsal hosts. {steps}\n\n"
            "Survived: the site answers through TLS as before or as after, `.env` and the database are the old or the\n"
            "new ones, `nginx -t` passes, no temporary file is left.\n"
            "Healed: one more deploy converges, the next changes nothing.\n\n"
            f"{text}\n{page.sections()}"
        )
    return 0 if well and outcomes else 1


if __name__ == "__main__":
    sys.exit(main())
