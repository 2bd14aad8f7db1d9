// Many unmodified pusher-js clients that name a session by `wsPath` alone. Prints what each was sent, in order.
import { createHmac, randomUUID } from 'node:crypto'
import { createInterface } from 'node:readline'
import Pusher from 'pusher-js'

const { port, key, secret, clients, channels, channelsEach } = JSON.parse(process.argv[2])
const tell = (what, more = {}) => console.log(JSON.stringify({ what, ...more }))
const sign = (text) => `${key}:${createHmac('sha256', secret).update(text).digest('hex')}`
const all = []
let authorizations = 0

for (let number = 0; number < clients; number++) {
  const client = { number, got: {}, came: [], failed: 0, connections: 0, longestGapMs: 0, subscribed: 0 }
  const pusher = new Pusher(key, {
    wsHost: '127.0.0.1',
    wsPort: port,
    wsPath: `/s/${randomUUID()}`,
    forceTLS: false,
    enabledTransports: ['ws'],
    cluster: 'none',
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, done) => {
        authorizations++
        done(null, { auth: sign(`${socketId}:${channelName}`) })
      },
    },
  })
  pusher.connection.bind('connected', () => client.connections++)
  for (let index = 0; index < channelsEach; index++) {
    const name = `private-c${(number + index) % channels}`
    client.got[name] = []
    const channel = pusher.subscribe(name)
    channel.bind('pusher:subscription_succeeded', () => client.subscribed++)
    channel.bind('pusher:resume_failed', () => client.failed++)
    channel.bind('e', (data) => {
      client.got[name].push(String(data))
      const now = performance.now()
      if (client.lastAt) client.longestGapMs = Math.max(client.longestGapMs, now - client.lastAt)
      client.lastAt = now
    })
  }
  client.pusher = pusher
  all.push(client)
}

const commands = {
  // Say when every client is on all its channels.
  ready: () => {
    const wait = setInterval(() => {
      if (all.every((client) => client.subscribed >= channelsEach)) {
        clearInterval(wait)
        tell('ready')
      }
    }, 20)
  },
  // Say when every client has the last number of each of its channels, or was told of a gap.
  settled: ({ last }) => {
    const wait = setInterval(() => {
      const isDone = all.every((client) =>
        Object.entries(client.got).every(([name, got]) => client.failed || got.includes(last[name])),
      )
      if (isDone) {
        clearInterval(wait)
        tell('settled')
      }
    }, 50)
  },
  report: () =>
    tell('report', {
      authorizations,
      clients: all.map(({ got, failed, connections, longestGapMs }) => ({ got, failed, connections, longestGapMs })),
    }),
  fresh: () => {
    authorizations = 0
    for (const client of all) client.longestGapMs = 0
  },
  end: () => {
    for (const client of all) client.pusher.disconnect()
    process.exit(0)
  },
}
createInterface({ input: process.stdin }).on('line', (line) => {
  const command = JSON.parse(line)
  commands[command.do](command)
})
process.stdin.on('end', () => process.exit(4))
