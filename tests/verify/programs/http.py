"""Asks the API, on its own port and through nginx and TLS, the same questions.

Prints {question: {"direct": answer, "site": answer}}; an answer is [status, content type, location, body, policy],
where without one the status is 0 and the body the reason. Neither a location's query nor a body after 20,000
characters, or the question's `most`; the policy is the Content-Security-Policy. Where nginx refused it among the
others and not alone, the status of that comes next (else 0); then 1 where the API gives another body each time.
"""

from __future__ import annotations

import base64
import concurrent.futures
import hashlib
import hmac
import http.client
import json
import re
import socket
import ssl
import subprocess
import sys
import time
from typing import Any

asked = json.loads(sys.argv[1])
TIMEOUT = 6  # seconds
LIMITED = (429, 503)
ALONE = 0.6  # seconds between questions that are asked again, one by one
HELD = 11  # seconds: for 10 nginx (1.26) passes nothing to an address that refused, long after the API is back
# Node refuses a request whose line and headers come to more than 16 KiB (431). These alone do not, and with a long
# query or a long Authorization they do: so the answer tells whether that arrived, and no route was asked.
NEARLY = {"X-Verification-1": "x" * 6000, "X-Verification-2": "x" * 5500}
REST = "x" * 6000
SESSIONS = 5
READ_SECRET = """
const [folder, key] = process.argv.slice(1);
const dotenv = require('module').createRequire(`${folder}/`)('dotenv');
process.stdout.write(dotenv.parse(require('fs').readFileSync(`${folder}/.env`))[key] ?? '');
"""
UNCHECKED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
UNCHECKED.check_hostname, UNCHECKED.verify_mode = False, ssl.CERT_NONE


class Site(http.client.HTTPConnection):
    """nginx, reached at an address of the host itself, whatever its certificate."""

    def connect(self) -> None:
        plain = socket.create_connection((asked["address"], 443), TIMEOUT)
        self.sock = UNCHECKED.wrap_socket(plain, server_hostname=asked["domain"])


def token() -> str:
    """For no salon, and for a minute; a later version of the page refuses what is not signed. It stays here."""
    command = ["node", "-e", READ_SECRET, "--", asked["folder"], asked["secret"]]
    secret = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    parts = [{"alg": "HS256", "typ": "JWT"}, {"salon_id": 0, "exp": int(time.time()) + 60}]
    head = b".".join(base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in parts)
    sign = base64.urlsafe_b64encode(hmac.new(secret, head, hashlib.sha256).digest()).rstrip(b"=")
    return (head + b"." + sign).decode()


def ask(where: str, question: dict[str, Any]) -> list[int | str]:
    path = question["path"].replace("{token}", SIGNED.result()) if "{token}" in question["path"] else question["path"]
    direct = where == "direct"
    kind, place = (http.client.HTTPConnection, "127.0.0.1") if direct else (Site, asked["domain"])
    connection = kind(place, asked["port"] if direct else 443, timeout=TIMEOUT)
    headers = {"Host": asked["domain"], "User-Agent": asked["browser"], **question.get("headers", {})}
    if question.get("of_page"):
        headers["Origin"] = f"https://{asked['domain']}"
    body = question.get("text")
    if "json" in question:
        headers["Content-Type"], body = (
            "application/json",
            json.dumps({"verification": "x" * question["json"]}).encode(),
        )
    if long := question.get("long"):
        headers |= NEARLY
    if long == "query":
        path = f"{path}?{REST}"
    elif long:
        headers[long] = f"Bearer {REST}"
    try:
        connection.request(question.get("method", "GET"), path, body, headers)
        answer = connection.getresponse()
        said = answer.headers
        text = "" if answer.status == 101 else answer.read(1_000_000).decode(errors="replace")
        location = said.get("Location", "").partition("?")[0]
        policy = ", ".join(said.get_all("Content-Security-Policy", []))
        content = said.get("Content-Type", "").partition(";")[0]
        return [answer.status, content, location, text[: question.get("most", 20_000)], policy]
    except (OSError, http.client.HTTPException) as error:
        return [0, "", "", getattr(error, "strerror", None) or str(error) or type(error).__name__, ""]
    finally:
        connection.close()


def sessions(path: str) -> list[int | str]:
    """Open several of socket.io at the API, and close each by a second request: the first answer that is not 200."""
    answer: list[int | str] = [0, "", "", "", ""]
    for _ in range(SESSIONS):
        opened = ask("direct", {"path": path})
        said = re.search(r'"sid":"([^"]+)"', str(opened[3]))
        if said is None:
            return opened
        close = {"path": f"{path}&sid={said[1]}", "method": "POST", "text": "1", "of_page": True}
        answer = ask("direct", close)
        if answer[0] != 200:
            return answer
    return answer


def is_slow(answer: list[int | str]) -> bool:
    """A busy host may answer when it is asked once more."""
    return answer[0] == 0 and str(answer[3]).endswith("timed out")


with concurrent.futures.ThreadPoolExecutor(64) as pool:
    SIGNED = pool.submit(token)
    asking = {
        name: {where: pool.submit(ask, where, question) for where in ("direct", "site")}
        for name, question in asked["questions"].items()
    }
    answers = {name: {where: each.result() for where, each in both.items()} for name, both in asking.items()}
    slow = [(name, where) for name, both in answers.items() for where, each in both.items() if is_slow(each)]
    for name, where in slow:
        asking[name][where] = pool.submit(ask, where, asked["questions"][name])
    for name, where in slow:
        answers[name][where] = asking[name][where].result()

began = time.monotonic()
held = list(answers)
while held := [name for name in held if answers[name]["site"][0] == 502 and answers[name]["direct"][0] not in (0, 502)]:
    if time.monotonic() - began > HELD:
        break
    time.sleep(0.5)
    for name in held:
        answers[name]["site"] = ask("site", asked["questions"][name])
for name, both in answers.items():
    if (status := both["site"][0]) in LIMITED and both["direct"][0] != status:
        time.sleep(ALONE)
        both["site"] = ask("site", asked["questions"][name])
        if both["site"][0] != status:
            both["site"].append(status)
for name, both in answers.items():
    direct, site = both["direct"], both["site"]
    if direct[0] and direct[:2] == site[:2] and direct[3] != site[3]:
        varies = ask("direct", asked["questions"][name])[3] != direct[3]  # a nonce, a time
        site += [0] * (6 - len(site)) + [int(varies)]
if asked["sessions"]:  # alone: workers of pm2 take the requests in turn
    answers["sessions"] = {"direct": sessions(asked["sessions"]), "site": [0, "", "", "", ""]}
print(json.dumps(answers))
