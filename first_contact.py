"""What to type where ssh does not let us in: shared by deploy and verification, which connect by different means."""

import shlex

COMPARE = "compare the fingerprint that this shows with the one in your provider's console, and answer yes"


def first_contact(error: str, ssh: str, place: str, port: object = None, known_hosts: object = None) -> list[str]:
    """Lines of advice, the command that can be pasted on one of its own; none where it is no matter of keys.

    `ssh` is the command to log in, `place` the host's name or address; `port` and `known_hosts` as the inventory has
    them: OpenSSH keeps a key by its port too.
    """
    text = error.lower()
    key = place if port in (None, 22, "22") else shlex.quote(f"[{place}]:{port}")
    file = f" -f {shlex.quote(str(known_hosts))}" if known_hosts else ""
    if "does not match" in text or "identification has changed" in text:
        changed = "the server's host key has changed: it is another server, or was reinstalled"
        return [f"{changed}. Only if you expected that, {COMPARE}:", f"ssh-keygen{file} -R {key}; {ssh}"]
    if "no host key" in text or "host key verification" in text:
        return [f"this machine does not know the server yet: {COMPARE}:", ssh]
    if "authentication" in text or "permission denied" in text:
        return ["the server does not accept this user or key: correct ssh_user or ssh_key until this lets you in:", ssh]
    if "protocol banner" in text or "no existing session" in text:
        return ["what answers there is not sshd, or one that is overloaded; see how far this gets:", f"{ssh} -v"]
    return []
