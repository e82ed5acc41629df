"""pyinfra runs this first, before it reads the inventory; bin/verify does too, and has no use for it."""

import gc
import sys

import pyinfra

if pyinfra.is_cli:
    # pyinfra 3.10 keeps Python from writing byte code: each run would compile our modules anew, 0.07 s.
    sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
    gc.freeze()  # what pyinfra has loaded stays: collecting it, again and again, takes 0.03 s
    gc.set_threshold(50_000)

    import terminal

    terminal.attend()
