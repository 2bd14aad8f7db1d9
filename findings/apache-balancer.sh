#!/usr/bin/env bash
# Apache httpd: ProxyPassMatch to a balancer with `ProxySet lbmethod=bybusyness`, whose module is loaded; the default's is not.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
apache2 -v | head -1
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
write() { # further modules
  for module in mpm_event authz_core slotmem_shm proxy proxy_http proxy_balancer lbmethod_bybusyness "$@"; do
    echo "LoadModule ${module}_module /usr/lib/apache2/modules/mod_$module.so"
  done
  cat <<CONF
ServerName localhost
DefaultRuntimeDir $folder
PidFile $folder/pid
ErrorLog $folder/log
User www-data
Group www-data
Listen 127.0.0.1:$port
<Proxy balancer://nodes>
    BalancerMember http://127.0.0.1:9
    ProxySet lbmethod=bybusyness
</Proxy>
ProxyPassMatch ^(/.*)\$ balancer://nodes\$1
CONF
}
starts() { # whether it is still there once it has started
  rm -f pid log
  apache2 -D FOREGROUND -f "$folder/conf" & child=$!
  for _ in $(seq 100); do grep -qs 'resuming normal operations' log && break; kill -0 $child 2>/dev/null || break; sleep 0.1; done
  if grep -qs 'resuming normal operations' log; then kill $child; wait $child || true; echo yes; else wait $child || true; echo no; fi
}
chmod 755 "$folder"
write > conf
checked=$(apache2 -t -f "$folder/conf" 2>&1 | tail -1)
without=$(starts)
said=$(grep -o 'Cannot find LB Method: byrequests' log | head -1 || true)
write lbmethod_byrequests > conf
with=$(starts)
echo "apache2 -t: $checked   guessed: Syntax OK"
echo "it starts: $without ($said)   guessed: yes, for byrequests is not used"
echo "with mod_lbmethod_byrequests: $with"
[ "$checked $without $with" = "Syntax OK no yes" ] || { echo "this has changed"; exit 1; }
