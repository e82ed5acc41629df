#!/bin/sh
# How long does bin/verify take, against the requirements' own one-line check, at 50 ms round trip?
# On rehearsal host "ver". Exit code 1 when it takes more than twice as long.
set -eu
cd "$(dirname "$0")/.."
bin/setup mmdebstrap systemd-nspawn nft ip ssh ssh-keygen mount
exec .venv/bin/python -m benchmarks.verify "$@"
