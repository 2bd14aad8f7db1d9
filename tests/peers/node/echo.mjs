// Unmodified laravel-echo over pusher-js. Reads one JSON command per line, writes one JSON observation per line.
import { createHmac } from 'node:crypto'
import { createInterface } from 'node:readline'
import Echo from 'laravel-echo'
import Pusher from 'pusher-js'

const { port, key, secret, id, name } = JSON.parse(process.argv[2])
const tell = (what, more = {}) => console.log(JSON.stringify({ what, ...more }))
const sign = (text) => `${key}:${createHmac('sha256', secret).update(text).digest('hex')}`

const authorize = ({ socketId, channelName }, done) => {
  if (channelName === 'private-forbidden') return done(null, { auth: `${key}:${'0'.repeat(64)}` })
  if (!channelName.startsWith('presence-')) return done(null, { auth: sign(`${socketId}:${channelName}`) })
  const channel_data = JSON.stringify({ user_id: id, user_info: { id, name } })
  done(null, { auth: sign(`${socketId}:${channelName}:${channel_data}`), channel_data })
}

const echo = new Echo({
  broadcaster: 'reverb',
  Pusher,
  key,
  wsHost: '127.0.0.1',
  wsPort: port,
  wssPort: port,
  forceTLS: false,
  enabledTransports: ['ws'],
  channelAuthorization: { customHandler: authorize },
})
const { connection } = echo.connector.pusher
connection.bind('state_change', ({ current }) => tell('state', { state: current, socket: echo.socketId() ?? null }))
connection.bind('error', (error) => tell('error', { code: error?.error?.data?.code ?? error?.data?.code ?? null }))

const listen = (channel, label) =>
  channel
    .subscribed(() => tell('subscribed', { channel: label }))
    .error((error) => tell('refused', { channel: label, status: error?.status ?? null }))
    .listen('MessageSent', (data) => tell('event', { channel: label, data }))

const commands = {
  public: ({ channel }) => listen(echo.channel(channel), channel),
  private: ({ channel }) =>
    listen(echo.private(channel), channel).listenForWhisper('typing', (data) => tell('whisper', { data })),
  presence: ({ channel }) =>
    listen(echo.join(channel), channel)
      .here((users) => tell('here', { users }))
      .joining((user) => tell('joining', { user }))
      .leaving((user) => tell('leaving', { user })),
  whisper: ({ channel, data }) => echo.private(channel).whisper('typing', data),
  leave: ({ channel }) => echo.leave(channel),
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
