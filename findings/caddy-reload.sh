#!/usr/bin/env bash
# Caddy: a certificate's file is replaced, and `caddy reload` is called with the same Caddyfile, as after a renewal.
set -euo pipefail
folder=$(mktemp -d); cd "$folder"
export HOME=$folder XDG_CONFIG_HOME=$folder XDG_DATA_HOME=$folder
caddy version
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
renew() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj "/CN=$1" \
    -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem 2>/dev/null
}
served() { openssl s_client -connect "127.0.0.1:$port" </dev/null 2>/dev/null | openssl x509 -noout -subject | sed 's/.*CN *= *//'; }
renew first
cat > Caddyfile <<CONF
{
	admin unix/$folder/admin.sock
	auto_https off
}
:$port {
	bind 127.0.0.1
	tls $folder/cert.pem $folder/key.pem
	respond "hello"
}
CONF
caddy run --config Caddyfile --adapter caddyfile >log 2>&1 & child=$!
trap 'kill $child 2>/dev/null; wait $child 2>/dev/null || true; rm -rf "$folder"' EXIT
for _ in $(seq 100); do [ "$(served 2>/dev/null)" = first ] && break; sleep 0.1; done
reload() { caddy reload --config Caddyfile --adapter caddyfile --address "unix/$folder/admin.sock" "$@" 2>/dev/null; }
before=$(served)
renew second
reload
after=$(served)
reload --force
forced=$(served)
echo "served at first: $before"
echo "after the renewal and a reload: $after   guessed: second"
echo "after reload --force: $forced"
[ "$before $after $forced" = "first first second" ] || { echo "this has changed"; exit 1; }
