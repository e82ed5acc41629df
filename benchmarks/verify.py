"""benchmarks/verify.sh: bin/verify and the requirements' own check, in turns, through a relay that delays."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.relay import relay
from tests.rehearsal.host import KEY, Host
from tests.rehearsal.story import ROOT, deploy, tokens

ADDRESS = "127.0.0.77"  # of the relay: ports 22, 80 and 443 as on the host
TARGET = 2.0  # times the requirements' check
THEIR_CHECKS = 7  # three keys, two packages, the location, /health

# The requirements' "command for a quick check of everything", as it stands there
THEIRS = """
echo "=== Checking ENV variables ==="
grep -c "YCLIENTS_PARTNER_TOKEN" /opt/ai-admin/.env
grep -c "YCLIENTS_APP_ID" /opt/ai-admin/.env
grep -c "JWT_SECRET" /opt/ai-admin/.env

echo "=== Checking Node modules ==="
cd /opt/ai-admin && npm list socket.io jsonwebtoken 2>/dev/null | grep -E "(socket.io|jsonwebtoken)" | head -2

echo "=== Checking Nginx WebSocket ==="
grep -c "socket.io" /etc/nginx/sites-available/ai-admin.app

echo "=== Checking API status ==="
curl -s http://localhost:3000/health | head -1
"""
FIREWALL = "ai_admin_benchmark"  # nothing answers at the relay's port 3000, as through a real firewall


def seconds(command: list[str]) -> float:
    started = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/verify.sh", description=__doc__)
    parser.add_argument("--times", type=int, default=10, help="runs of each (10)")
    parser.add_argument("--round-trip", type=int, default=50, help="milliseconds (50)")
    arguments = parser.parse_args()
    host = Host("ver")
    host.reset()
    done = deploy(host, environment=tokens())
    if done.code:
        raise SystemExit(done.output)
    rule = f"type filter hook output priority 0; ip daddr {ADDRESS} tcp dport 3000 drop;"
    nft = f"table ip {FIREWALL} {{\nchain out {{ {rule} }}\n}}"
    delayed = relay(ADDRESS, (22, 80, 443), host.address, arguments.round_trip / 1000)
    with tempfile.TemporaryDirectory() as name, delayed:
        subprocess.run(["nft", "-f", "-"], input=nft, text=True, check=True)
        try:
            theirs, ours, checks = measure(host, Path(name), arguments.times)
        finally:
            subprocess.run(["nft", "delete", "table", "ip", FIREWALL], check=True)
            host.down()
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(f"{arguments.round_trip} ms round trip, {arguments.times} runs of each, median (lowest to highest), seconds")
    for title, count, times in (("the requirements' check", THEIR_CHECKS, theirs), ("bin/verify", checks, ours)):
        print(f"  {title:<24} {statistics.median(times):5.2f} ({min(times):.2f} to {max(times):.2f})  {count} checks")
    print(f"  {ratio:.2f} times the time (at most {TARGET}), {checks / THEIR_CHECKS:.1f} times the checks (at least 5)")
    return 0 if ratio <= TARGET and checks >= 5 * THEIR_CHECKS else 1


def measure(host: Host, folder: Path, times: int) -> tuple[list[float], list[float], int]:
    """Seconds of the requirements' check and of ours, in turns, and the number of our checks."""
    known = folder / "known_hosts"
    known.write_text((host.folder / "known_hosts").read_text().replace(host.address, ADDRESS))
    inventory = folder / "inventory.py"
    inventory.write_text(
        f"""far = [("ver", {{
            "ssh_hostname": "{ADDRESS}", "ssh_user": "root", "ssh_key": "{KEY}", "ssh_known_hosts_file": "{known}",
            "verify_address": "{ADDRESS}", "verify_ca": "{host.root}/etc/letsencrypt/live/ai-admin.app/fullchain.pem",
        }})]"""
    )
    options = [f"UserKnownHostsFile={known}", f"IdentityFile={KEY}", "StrictHostKeyChecking=yes", "LogLevel=ERROR"]
    their = ["ssh", "-F", "none", *(word for each in options for word in ("-o", each)), f"root@{ADDRESS}", THEIRS]
    report = folder / "verify.json"
    our = [sys.executable, "-m", "tests.verify", str(inventory)]
    seconds(their)
    seconds([*our, "--json", str(report)])  # neither is measured cold
    pairs = [(seconds(their), seconds(our)) for _ in range(times)]
    return [a for a, _ in pairs], [b for _, b in pairs], json.loads(report.read_text())[0]["checks"]


if __name__ == "__main__":
    sys.exit(main())
