"""The host's half of the bundle: what runs on the host itself. Three rules:

1. Python 3.10 or newer, and its standard library only. The host has nothing of ours installed.
2. It imports nothing but `remote.*`. `channel.py` sends these modules, and nothing else, over standard input.
3. Plain data in and out: what JSON can carry. The bytes of a file travel as `files.text` makes them.

A *noun* is one thing that the host must have (`dotenv`, `npm`, `source`, `migration`, `nginx`, `pm2`). Its module here
has `read`, which looks at it and changes nothing; a *step* is a function that makes one change. All `read`s that a run
needs are one *look* (`look.py`), in one process. A step (`step.py`) is one process: it completes, or leaves the old
state and says why.
"""


class Failure(Exception):
    """An expected failure. The message is one for the operator, and the old state stands."""
