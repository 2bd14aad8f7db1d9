#!/usr/bin/env bash
# Brings a machine that has Python 3.11+ and make to where SmartLink runs (`run`), is tested (`dev`), and is tested in
# Firefox and WebKit (`browsers`), behind every proxy (`proxies`), with Prometheus (`alerts`), with Laravel (`peers`) or on Kubernetes (`chart`) too.
# Says nothing and takes under a second when there is nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."
want=${1:-run}
mkdir -p .stamps

say() { printf '\033[2m· %s\033[0m\n' "$*" >&2; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
digest() { cat "$@" | sha256sum | cut -d' ' -f1; }
fresh() { [ "$(cat ".stamps/$1" 2>/dev/null)" = "$2" ]; }

install_packages() {
  command -v apt-get >/dev/null || die "missing: $*. Install them with your package manager."
  [ "$(id -u)" = 0 ] || die "missing: $*. As root: apt-get install $*"
  say "installing Debian packages: $*"
  apt-get update -qq >/dev/null
  for name in "${optional[@]}"; do
    if apt-cache show "$name" >/dev/null 2>&1; then set -- "$@" "$name"; fi
  done
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
  die "needs Python 3.11 or newer; '$python' is not. Set PYTHON=/path/to/python3.11"

if [ ! -x .venv/bin/pip ]; then
  say "creating .venv"
  "$python" -m venv .venv 2>/dev/null || { rm -rf .venv; install_packages python3-venv; "$python" -m venv .venv; }
fi

# The development set holds the other, so a second `make run` never takes packages away.
lock=run
if [ "$want" != run ] || [ -e .stamps/python-dev ]; then lock=dev; fi
sum=$(digest "requirements/$lock.txt" pyproject.toml)
if ! fresh "python-$lock" "$sum"; then
  say "installing Python packages ($lock)"
  .venv/bin/pip install -q --disable-pip-version-check --require-hashes -r "requirements/$lock.txt"
  .venv/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
  echo "$sum" > ".stamps/python-$lock"
fi

scripts/pages.sh --if-changed

missing=()
optional=()
if [ "$want" != run ]; then
  ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || missing+=(postgresql)
  command -v redis-server >/dev/null || missing+=(redis-server)
  command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || missing+=(pgbouncer)
  command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing+=(nginx-light)
  command -v chromium >/dev/null || missing+=(chromium)
  # The same without windows. Older releases do not have it.
  command -v chromium-headless-shell >/dev/null || optional+=(chromium-headless-shell)
  command -v gcc >/dev/null || missing+=(gcc libc6-dev)
  [ -e /usr/include/openssl/hmac.h ] || missing+=(libssl-dev)
fi
if [ "$want" = alerts ]; then
  { command -v prometheus && command -v promtool; } >/dev/null || missing+=(prometheus)
fi
if [ "$want" = proxies ]; then
  command -v haproxy >/dev/null || [ -x /usr/sbin/haproxy ] || missing+=(haproxy)
  command -v caddy >/dev/null || missing+=(caddy)
  command -v apache2 >/dev/null || [ -x /usr/sbin/apache2 ] || missing+=(apache2)
  command -v lighttpd >/dev/null || [ -x /usr/sbin/lighttpd ] || missing+=(lighttpd)
  [ -e /usr/lib/lighttpd/mod_openssl.so ] || missing+=(lighttpd-mod-openssl)
  [ -e /usr/lib/lighttpd/mod_deflate.so ] || missing+=(lighttpd-mod-deflate)
  command -v varnishd >/dev/null || [ -x /usr/sbin/varnishd ] || missing+=(varnish)
  command -v hitch >/dev/null || [ -x /usr/sbin/hitch ] || missing+=(hitch)
fi
if [ "$want" = browsers ]; then
  command -v firefox-esr >/dev/null || missing+=(firefox-esr)
  command -v WebKitWebDriver >/dev/null || missing+=(webkit2gtk-driver)
  command -v Xvfb >/dev/null || missing+=(xvfb)
fi
if [ "$want" = peers ]; then
  command -v php >/dev/null || missing+=(php-cli)
  [ -d /usr/share/php/Illuminate/Config ] || missing+=(php-illuminate-config)
  [ -d /usr/share/php/Illuminate/Broadcasting ] || missing+=(php-illuminate-broadcasting)
  [ -d /usr/share/php/Illuminate/Redis ] || missing+=(php-illuminate-redis php-redis)
fi
if [ "$want" = chart ]; then
  # As packages of Go and Python, into a folder of their own: pins nothing of the product.
  if [ ! -x var/tools/helm ]; then
    command -v go >/dev/null || die "helm is built with Go, which is not here; or put helm on the PATH"
    say "building helm"
    GOBIN=$PWD/var/tools go install helm.sh/helm/v3/cmd/helm@v3.22.0
  fi
  if [ ! -x var/tools/kubernetes-validate/bin/kubernetes-validate ]; then
    say "installing kubernetes-validate"
    "$python" -m venv var/tools/kubernetes-validate
    var/tools/kubernetes-validate/bin/pip install -q --disable-pip-version-check kubernetes-validate==1.37.0
  fi
fi
[ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
