#!/usr/bin/env bash
# Installs the lowest version of everything pyproject.toml asks for into an environment of its own, and tries each part.
set -euo pipefail
cd "$(dirname "$0")/.."
tests=(
  tests/protocol tests/server/test_channels.py tests/faults/test_redis_reset_connection.py
  tests/broadcasting/test_channels.py tests/broadcasting/test_packing.py tests/broadcasting/test_encryption.py
  tests/portal/test_pages.py tests/portal/test_wallet_api.py
  tests/client/test_listening.py tests/client/test_nonsense.py tests/client/test_ways_to_the_server.py
)
uv=${UV:-.venv/bin/uv}
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$uv" venv --quiet --python "${PYTHON:-python3}" "$place"
"$uv" pip install --quiet --python "$place" --resolution lowest-direct -e ".[all]"
"$uv" pip install --quiet --python "$place" -c <(grep -o '^[a-z].*==[^ ]*' requirements/dev.txt | grep '^\(pytest\|hypothesis\|psycopg\)') \
  pytest pytest-asyncio pytest-timeout hypothesis "psycopg[binary]"
"$place/bin/python" -m pytest -q -p no:cacheprovider "${@:-${tests[@]}}"
