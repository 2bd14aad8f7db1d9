#!/usr/bin/env bash
# Runs the fast tests on each Python from the lowest that pyproject.toml allows, where an interpreter is found: on the PATH,
# of pyenv, of uv. Each has an environment of its own in .pythons/. Says which were not found; installs none.
#   PYTHONS="3.12 3.13" scripts/pythons.sh [what pytest is given instead of the fast tests]
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-$PWD/.venv/bin/uv}
# pyenv's shims run only the versions that are chosen.
if command -v pyenv >/dev/null; then PYENV_VERSION=$(pyenv versions --bare | paste -sd: -); export PYENV_VERSION; fi

missing=() failed=() passed=()
for version in ${PYTHONS:-3.11 3.12 3.13 3.14 3.15}; do
  if ! python=$("$uv" python find --system --no-project --no-python-downloads "$version" 2>/dev/null); then
    missing+=("$version")
    continue
  fi
  place=.pythons/$version
  [ -x "$place/bin/python" ] || "$uv" venv --quiet --python "$python" "$place"
  printf '\n· %s\n' "$("$place/bin/python" -VV)"
  if "$uv" pip install --quiet --python "$place" --require-hashes -r requirements/dev.txt &&
    "$uv" pip install --quiet --python "$place" --no-deps --no-build-isolation -e . &&
    scripts/fast.sh "$place/bin/python" "$@"
  then passed+=("$version"); else failed+=("$version"); fi
done
printf '\npassed: %s\nfailed: %s\nnot found: %s\n' "${passed[*]:-none}" "${failed[*]:-none}" "${missing[*]:-none}"
[ ${#failed[@]} = 0 ] && [ ${#passed[@]} != 0 ]
