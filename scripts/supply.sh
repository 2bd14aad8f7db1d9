#!/usr/bin/env bash
# What the product is made of, and what is known about it.
#   scripts/supply.sh sbom    dist/sbom-python.json and dist/sbom-pages.json, in CycloneDX
#   scripts/supply.sh audit   known vulnerabilities; fails if there are any, or if nobody could be asked
set -euo pipefail
cd "$(dirname "$0")/.."
tools=var/tools/supply
want=${1:-}

if [ ! -x $tools/bin/pip-audit ]; then
  "${PYTHON:-python3}" -m venv $tools
  $tools/bin/pip install -q --disable-pip-version-check cyclonedx-bom==7.5.0 pip-audit==2.10.1
fi
case $want in
  sbom)
    mkdir -p dist
    $tools/bin/cyclonedx-py requirements requirements/run.txt --pyproject pyproject.toml --output-reproducible \
      -o dist/sbom-python.json 2> >(grep -v -e UserWarning -e 'warn(' >&2)
    (cd frontend && npm sbom --sbom-format cyclonedx --omit dev --package-lock-only) > dist/sbom-pages.json
    ;;
  audit)
    failed=0
    # Without --strict a package that nobody could be asked about counts as good.
    $tools/bin/pip-audit --strict --progress-spinner off --require-hashes --disable-pip -r requirements/run.txt || failed=1
    (cd frontend && npm audit --omit dev) || failed=1
    exit $failed
    ;;
  *) echo "supply: sbom, or audit" >&2; exit 1 ;;
esac
