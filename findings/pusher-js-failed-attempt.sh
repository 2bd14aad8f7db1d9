#!/usr/bin/env bash
# pusher-js: a connection attempt that the server refuses at once. How soon is the next one?
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
npm init -y > /dev/null
npm install --silent --no-audit --no-fund pusher-js@8.6.0 ws@8.18.3
cat > tried.mjs <<'EOF'
import { createServer } from 'node:http'
import Pusher from 'pusher-js'
import { WebSocketServer } from 'ws'

// Tells how long a client takes to come back after the server refused it in this way, in seconds.
const pauseAfter = (refuse) =>
  new Promise((done) => {
    const attempts = []
    const sockets = new WebSocketServer({ noServer: true })
    const server = createServer().on('upgrade', (request, socket, head) => {
      attempts.push(performance.now())
      if (attempts.length === 1) return refuse(sockets, request, socket, head)
      socket.destroy()
      pusher.disconnect()
      server.close()
      done((attempts[1] - attempts[0]) / 1000)
    })
    let pusher
    server.listen(0, '127.0.0.1', () => {
      pusher = new Pusher('key', {
        wsHost: '127.0.0.1', wsPort: server.address().port, forceTLS: false, enabledTransports: ['ws'], cluster: 'none',
      })
    })
  })

const unavailable = await pauseAfter((_, __, socket) =>
  socket.end('HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'),
)
const reconnect = await pauseAfter((sockets, request, socket, head) =>
  sockets.handleUpgrade(request, socket, head, (opened) => opened.close(4200, 'reconnect')),
)
console.log(`after HTTP 503 to the handshake, the next attempt: ${unavailable.toFixed(1)} s   guessed: at most the 1 s of a back-off`)
console.log(`after a handshake closed with 4200:                ${reconnect.toFixed(1)} s`)
if (!(unavailable > 10 && reconnect < 2)) throw new Error('this has changed')
process.exit(0)
EOF
npm ls --depth 0 | grep pusher-js
node --version
node tried.mjs
