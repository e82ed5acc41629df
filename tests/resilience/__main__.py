"""bin/faults: every fault on real hosts, then histories of two or three faults in a row, two hosts at a time. It
goes on where it stopped; the table goes to docs/faults.md.

Exit codes: 0 all survived and healed, 1 not.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Queue

from channel import bundle
from tests.crash.__main__ import main as calls
from tests.rehearsal.host import STATE, Host, of_this_run
from tests.rehearsal.image import HERE as REHEARSAL
from tests.rehearsal.image import digest
from tests.resilience import page
from tests.resilience.faults import STEPS, Fault, every, fresh_tokens
from tests.resilience.guardian import main as guardian
from tests.resilience.histories import History, Tale, histories, perform
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


def try_history(history: History, host: Host, root: Path = ROOT) -> Outcome:
    started = time.monotonic()
    survived, healed = perform(history, Tale(host, root))
    return Outcome(history.name, survived, healed, round(time.monotonic() - started, 1))


def prepare(case: Fault | History, host: Host, soiled: bool) -> None:
    """A pristine host for a first deploy; else a converged one, which the case before may have left."""
    if case.scenario == "first" or soiled or not host.is_up:
        host.reset()
        if case.scenario == "token":
            done = World(host).deploy({})
            assert done.code == 0, done.output[-600:]


def attempt(case: Fault | History, host: Host, soiled: bool) -> Outcome:
    try:
        prepare(case, host, soiled)
        return try_fault(case, World(host)) if isinstance(case, Fault) else try_history(case, host)
    except (Exception, SystemExit) as error:  # a broken harness is a failed fault, not a lost one
        return Outcome(case.name, [f"{type(error).__name__}: {error}"], [], 0.0)


def run(cases: Sequence[Fault | History], names: Sequence[str], book: Path) -> list[Outcome]:
    """All of them, each name a host; what the book has already is not tried again."""
    known = [Outcome(**json.loads(line)) for line in book.read_text().splitlines()] if book.exists() else []
    done = {outcome.name: outcome for outcome in known if not outcome.survived and not outcome.healed}
    todo: Queue[Fault | History] = Queue()
    for case in sorted(cases, key=lambda case: (isinstance(case, History), case.scenario != "token")):
        if case.name not in done:
            todo.put(case)
    total = todo.qsize()

    def work(name: str) -> None:
        host, soiled = of_this_run(name), True
        with suppress(Empty):
            while True:
                case = todo.get_nowait()
                outcome = done[case.name] = attempt(case, host, soiled)
                is_left = isinstance(case, Fault) and (case.scenario == "first" or "full" in case.name)
                soiled = bool(outcome.survived or outcome.healed) or is_left
                with book.open("a") as pages:
                    pages.write(json.dumps(asdict(outcome)) + "\n")
                show(outcome, f"{total - todo.qsize():>3}/{total} ")
        host.down()

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(work, names))
    return [done[case.name] for case in cases if case.name in done]


def show(outcome: Outcome, number: str = "") -> None:
    problems = [*outcome.survived, *outcome.healed]
    print(f"  {'✗' if problems else '✓'} {number}{outcome.name:<62} {outcome.seconds:5.1f} s", file=sys.stderr)
    for problem in problems:
        print(f"        {problem}", file=sys.stderr, flush=True)


def shortest(history: History, host: Host) -> Outcome:
    """The history, or the shortest part of it that still fails."""
    outcome = attempt(history, host, soiled=True)
    show(outcome)
    for shorter in history.shorter() if outcome.survived or outcome.healed else ():
        found = shortest(shorter, host)
        if found.survived or found.healed:
            return found
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """By kind: tried, survived, healed."""
    kinds: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        head, _, tail = outcome.name.partition(": ")
        kind = f"{head.split(',')[0]}, each of its steps: {tail}" if tail else outcome.name
        kind = "histories of two or three faults" if head == "history" else kind
        kinds.setdefault(kind, []).append(outcome)
    rows = ["| fault | tried | survived | healed by the next run |", "|---|---|---|---|"]
    for kind, found in [*kinds.items(), ("**all**", outcomes)]:
        survived = sum(not outcome.survived for outcome in found)
        healed = sum(not outcome.healed for outcome in found)
        rows.append(f"| {kind} | {len(found)} | {survived} | {healed} |")
    return "\n".join(rows)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="bin/faults", description=__doc__)
    made.add_argument("-k", default="", metavar="TEXT", help="only faults with this text in their name")
    made.add_argument("--calls", action="store_true", help="only the strikes at every system call: no host")
    made.add_argument(
        "--guardian", action="store_true", help="only how soon the host puts right what a dead client left"
    )
    made.add_argument("--histories", type=int, default=500, metavar="N", help="how many (default: 500)")
    made.add_argument("--history", metavar="TEXT", help="only this one, as it was printed; if it fails, cut short")
    made.add_argument("--hosts", type=int, default=2, metavar="N", help="how many at a time (default: 2)")
    return made


def main() -> int:
    arguments = parser().parse_args()
    if arguments.calls or arguments.guardian:
        return calls() if arguments.calls else guardian()
    names = [f"fault{number}" for number in range(3, 3 + arguments.hosts)]
    if arguments.history:
        outcome = shortest(History.parse(arguments.history), of_this_run(names[0]))
        print(f"{'fails' if outcome.survived or outcome.healed else 'all is well'}: {outcome.name}")
        return 1 if outcome.survived or outcome.healed else 0
    code = ("facts", "operations", "remote", "templates", "files", "group_data", "tests/rehearsal", "tests/resilience")
    recipe = digest(*(ROOT / name for name in code), *sorted(ROOT.glob("*.py")))
    code_name = bundle()
    book = STATE / f"faults-{recipe}.jsonl"
    STATE.mkdir(parents=True, exist_ok=True)
    cases: list[Fault | History] = [*every(), *histories(arguments.histories)]
    outcomes = run([case for case in cases if arguments.k in case.name], names, book)
    text = table(outcomes)
    print(text)
    well = all(not outcome.survived and not outcome.healed for outcome in outcomes)
    told = sum(outcome.name.startswith("history: ") for outcome in outcomes)
    tried = f"{len(outcomes) - told} faults and {told} histories of two or three faults tried, "
    tried += "100% survived and healed" if well else "NOT all survived and healed"
    print(f"\n{tried}")
    if not arguments.k:
        TABLE.parent.mkdir(exist_ok=True)
        day = datetime.now(UTC).strftime("%d %B %Y")
        steps = f"A first deploy has {STEPS['first']} remote steps, one for a token {STEPS['token']}."
        TABLE.write_text(
            f"# Faults\n\n{tried}: {day}, `bin/faults` of {code_name} on {len(names)} rehearsal hosts. {steps}\n\n"
            "Survived: the site answers through TLS as before or as after, `.env` and the database are the old or the\n"
            "new ones, `nginx -t` passes, no temporary file is left.\n"
            "Healed: one more deploy converges, the next changes nothing.\n"
            "In a history also: no line that somebody else wrote is lost without a backup, no secret is printed or\n"
            "left lying about, the exit code of `bin/verify` agrees with what is true, a second operator is\n"
            "refused.\n\n"
            f"{text}\n{page.sections()}"
        )
    return 0 if well and outcomes else 1


if __name__ == "__main__":
    sys.exit(main())
