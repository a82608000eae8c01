#!/usr/bin/env bash
# What a GPU must get right, then how fast it is: scripts/gpu_check.sh OUT.json [ROOT_OF_IMAGES]. Some ten minutes.
set -euo pipefail
exec python "$(dirname "$0")/gpu_check.py" --out "$1" ${2:+--root "$2"}
