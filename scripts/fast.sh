#!/usr/bin/env bash
# The tests that start no process: no database server, no Redis, no browser, no command. `fast.sh PYTHON [pytest's arguments]`.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
shift
[ $# != 0 ] || set -- tests/protocol tests/server tests/broadcasting tests/conformance
SMARTLINK_TEST_FAST=1 exec "$python" -m pytest -q -n auto --dist worksteal -r fE "$@"
