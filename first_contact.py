"""What to type where ssh does not let us in: shared by deploy and verification, which connect by different means."""

COMPARE = "compare the fingerprint that this shows with the one in your provider's console, and answer yes"


def first_contact(error: str, ssh: str, place: str) -> list[str]:
    """Lines of advice, the command that can be pasted on one of its own; none where it is no matter of keys.

    `ssh` is the command to log in, `place` the host's name or address.
    """
    text = error.lower()
    if "does not match" in text or "identification has changed" in text:
        return [f"the server is another, or was installed anew. If so, {COMPARE}:", f"ssh-keygen -R {place}; {ssh}"]
    if "no host key" in text or "host key verification" in text:
        return [f"this machine does not know the server yet: {COMPARE}:", ssh]
    if "authentication" in text or "permission denied" in text:
        return ["the server does not take this user or key: correct ssh_user or ssh_key until this lets you in:", ssh]
    return []
