// Unmodified laravel-echo over pusher-js, authorized by the broadcasting library's own endpoint.
// Reads one JSON command per line, writes one JSON observation per line.
import { createInterface } from 'node:readline'
import Echo from 'laravel-echo'
import Pusher from 'pusher-js'

const { port, key, endpoint, user, together } = JSON.parse(process.argv[2])
const tell = (what, more = {}) => console.log(JSON.stringify({ what, ...more }))

// Many channels in one call: those asked for in the same turn travel together.
const waiting = []
const authorizeTogether = ({ socketId, channelName }, done) => {
  if (waiting.push({ channelName, done }) > 1) return
  setTimeout(async () => {
    const asked = waiting.splice(0)
    tell('asked', { count: asked.length })
    const answer = await fetch(endpoint, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: user },
      body: JSON.stringify({ socket_id: socketId, channels: asked.map((each) => each.channelName) }),
    })
    const { channels } = await answer.json()
    for (const each of asked) {
      const { status, data } = channels[each.channelName]
      if (status === 200) each.done(null, data)
      else each.done(Object.assign(new Error(data.message), { status }), null)
    }
  })
}

const echo = new Echo({
  broadcaster: 'reverb',
  Pusher,
  key,
  wsHost: '127.0.0.1',
  wsPort: port,
  forceTLS: false,
  enabledTransports: ['ws'],
  channelAuthorization: together
    ? { customHandler: authorizeTogether }
    : { transport: 'ajax', endpoint, headers: { authorization: user } },
})
echo.connector.pusher.connection.bind('state_change', ({ current }) => tell('state', { state: current }))

const watch = (channel, label) =>
  channel
    .subscribed(() => tell('subscribed', { channel: label }))
    .error((error) => tell('refused', { channel: label, status: error?.status ?? null }))
    .notification((data) => tell('notification', { data }))
    .listenToAll((event, data) => tell('event', { channel: label, event, data }))

const commands = {
  private: ({ channel }) => watch(echo.private(channel), channel),
  encrypted: ({ channel }) => watch(echo.encryptedPrivate(channel), channel),
  end: () => {
    echo.disconnect()
    process.exit(0)
  },
}
createInterface({ input: process.stdin }).on('line', (line) => {
  const command = JSON.parse(line)
  commands[command.do](command)
})
setTimeout(() => process.exit(3), 90_000)
