#!/usr/bin/env bash
# pusher-js: is the answer of an authorization handler still whole after an encrypted channel has used it?
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
npm init -y > /dev/null
npm install --silent --no-audit --no-fund pusher-js@8.6.0
cat > tried.mjs <<'EOF'
import Pusher from 'pusher-js'

const answer = { auth: 'key:signature', shared_secret: Buffer.alloc(32).toString('base64') }
const pusher = new Pusher('key', {
  wsHost: '127.0.0.1', wsPort: 9, forceTLS: false, enabledTransports: ['ws'], cluster: 'none',
  channelAuthorization: { customHandler: (_, done) => done(null, answer) },
})
const channel = pusher.subscribe('private-encrypted-room')
const errors = []
for (let time = 0; time < 2; time += 1) channel.authorize('1.1', (error) => errors.push(error?.message ?? 'accepted'))
console.log(`the answer afterwards has: ${Object.keys(answer)}   guessed: auth,shared_secret`)
console.log(`the first time: ${errors[0]}; the same answer again: ${errors[1]}`)
if ('shared_secret' in answer || errors[0] !== 'accepted' || errors[1] === 'accepted') throw new Error('this has changed')
process.exit(0)
EOF
npm ls --depth 0 | grep pusher-js
node --version
node tried.mjs
