#!/usr/bin/env bash
# Everything `make test` runs: setup, lint and types, the pages' unit tests, then pytest, whose lines come last.
# Killed, it leaves no process behind.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
if [ -z "${SMARTLINK_GUARDED:-}" ]; then
  SMARTLINK_GUARDED=1 exec "${PYTHON:-python3}" scripts/guard.py scripts/test.sh "$@"
fi
scripts/setup.sh dev
ruff check -q .
ruff format --check -q .
mypy --no-error-summary
lint-imports > /dev/null || { lint-imports; exit 1; }
(cd frontend && npm run --silent check && npm run --silent test)
exec pytest -q -n "${PYTEST_WORKERS:-3}" --dist worksteal "$@"
