#!/usr/bin/env bash
# pysher's auto_sub=True subscribes again after a reconnect. With a signature for the new socket?
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check pysher==1.0.8 websockets==15.0.1 websocket-client==1.9.0 requests==2.32.5
cat > tried.py <<'EOF'
import importlib.metadata, json, logging, queue, threading
import pysher
from websockets.sync.server import serve

logging.disable(logging.CRITICAL)
heard: queue.Queue[dict] = queue.Queue()
sockets = 0

def handle(connection) -> None:
    global sockets
    sockets += 1
    told = json.dumps({"socket_id": f"{sockets}.1", "activity_timeout": 60})
    connection.send(json.dumps({"event": "pusher:connection_established", "data": told}))
    while (message := json.loads(connection.recv()))["event"] != "pusher:subscribe":
        pass
    heard.put(message["data"])
    connection.close()  # as a server that restarts

server = serve(handle, "127.0.0.1", 0)
port = server.socket.getsockname()[1]
threading.Thread(target=server.serve_forever, daemon=True).start()
client = pysher.Pusher("key", secret="secret", custom_host="127.0.0.1", port=port, secure=False, auto_sub=True, reconnect_interval=1)
first = threading.Event()
def once(_: str) -> None:
    if not first.is_set():
        first.set()
        client.subscribe("private-room")
client.connection.bind("pusher:connection_established", once)
client.connect()
before, after = heard.get(timeout=30), heard.get(timeout=60)
client.disconnect()
print("pysher", importlib.metadata.version("pysher"))
print(f"subscribing: auth {'given' if 'auth' in before else 'missing'}   guessed: given")
print(f"subscribing again after a reconnect: auth {'given' if 'auth' in after else 'missing'}   guessed: given, for the new socket")
assert ("auth" in before, "auth" in after) == (True, False), "this has changed"
EOF
venv/bin/python tried.py
