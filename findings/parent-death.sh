#!/usr/bin/env bash
# PR_SET_PDEATHSIG: "the signal that the calling process will get when its parent dies". Who is the parent?
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
setpriv --version
uname -sr
cat > tried.py <<'EOF'
import subprocess, threading

def start() -> None:
    global child
    child = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "sleep", "60"])
    threading.Event().wait(0.5)  # until setpriv has become sleep

start()
try:
    of_the_first_thread = child.wait(1)
except subprocess.TimeoutExpired:
    of_the_first_thread = None
child.kill()
child.wait()

thread = threading.Thread(target=start)
thread.start()
thread.join()
try:
    of_a_thread_that_ended = child.wait(5)
except subprocess.TimeoutExpired:
    of_a_thread_that_ended = None
    child.kill()
print(f"started by the first thread, which goes on: {of_the_first_thread or 'alive'}   guessed: alive")
print(f"started by a thread that ended, in a process that goes on: {of_a_thread_that_ended or 'alive'}   guessed: alive")
assert (of_the_first_thread, of_a_thread_that_ended) == (None, -9), "this has changed"
EOF
python3 tried.py
