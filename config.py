"""pyinfra runs this first, before it reads the inventory; bin/verify does too, and has no use for it."""

import pyinfra

if pyinfra.is_cli:
    import terminal

    terminal.attend()
