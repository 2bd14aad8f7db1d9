// Unmodified pusher-js. Reads one JSON command per line, writes one JSON observation per line.
import { createHmac } from 'node:crypto'
import { createInterface } from 'node:readline'
import Pusher from 'pusher-js'
import Server from 'pusher'

const { port, appId, key, secret, id, watchlist, masterKey } = JSON.parse(process.argv[2])
const tell = (what, more = {}) => console.log(JSON.stringify({ what, ...more }))
const sign = (text) => `${key}:${createHmac('sha256', secret).update(text).digest('hex')}`
const server = new Server({ appId, key, secret, host: '127.0.0.1', encryptionMasterKeyBase64: masterKey })

const pusher = new Pusher(key, {
  wsHost: '127.0.0.1',
  wsPort: port,
  forceTLS: false,
  enabledTransports: ['ws'],
  cluster: 'none',
  userAuthentication: {
    customHandler: ({ socketId }, done) => {
      const user_data = JSON.stringify({ id, user_info: { name: id }, watchlist })
      done(null, { auth: sign(`${socketId}::user::${user_data}`), user_data })
    },
  },
  channelAuthorization: {
    customHandler: ({ socketId, channelName }, done) => done(null, server.authorizeChannel(socketId, channelName)),
  },
})
pusher.connection.bind('state_change', ({ current }) => tell('state', { state: current }))
pusher.connection.bind('error', (error) => tell('error', { code: error?.error?.data?.code ?? error?.data?.code ?? null }))
pusher.user.bind('greeting', (data) => tell('to user', { data }))
for (const name of ['online', 'offline']) {
  pusher.user.watchlist.bind(name, ({ name, user_ids }) => tell(name, { users: user_ids }))
}

const commands = {
  signin: () => pusher.signin(),
  subscribe: ({ channel }) => {
    const subscribed = pusher.subscribe(channel)
    subscribed.bind('pusher:subscription_succeeded', (members) =>
      tell('subscribed', { channel, me: members?.me ?? null, count: members?.count ?? null }),
    )
    subscribed.bind('pusher:subscription_error', (error) => tell('refused', { channel, status: error?.status ?? null }))
    subscribed.bind('pusher:subscription_count', ({ subscription_count }) =>
      tell('count', { channel, count: subscription_count, kept: subscribed.subscriptionCount }),
    )
    subscribed.bind('pusher:cache_miss', () => tell('miss', { channel }))
    subscribed.bind('greeting', (data) => tell('event', { channel, data }))
  },
  end: () => {
    pusher.disconnect()
    process.exit(0)
  },
}
createInterface({ input: process.stdin }).on('line', (line) => {
  const command = JSON.parse(line)
  commands[command.do](command)
})
setTimeout(() => process.exit(3), 90_000)
