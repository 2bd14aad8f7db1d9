#!/usr/bin/env bash
# The tests that start no process: no database server, no Redis, no browser, no command. `fast.sh PYTHON [pytest arguments]`.
# They wait more than they compute, so there are more workers than cores.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
shift
[ $# != 0 ] || set -- tests/protocol tests/server tests/broadcasting tests/client tests/conformance
SMARTLINK_TEST_FAST=1 exec "$python" -m pytest -q -p no:schemathesis -p no:cov -n "${PYTEST_WORKERS:-$((4 * $(nproc)))}" --dist worksteal -r fE "$@"
