// Unmodified pusher-js, or laravel-echo over it, against an application that the broadcasting library serves.
// Reads one JSON command per line, writes one JSON observation per line.
import { createInterface } from 'node:readline'
import Echo from 'laravel-echo'
import Pusher from 'pusher-js'

const { port, key, application, user, client } = JSON.parse(process.argv[2])
const tell = (what, more = {}) => console.log(JSON.stringify({ what, ...more }))
const endpoint = `${application}/broadcasting/auth`
const channelAuthorization = { transport: 'ajax', endpoint, headers: { authorization: user } }
const server = { wsHost: '127.0.0.1', wsPort: port, forceTLS: false, enabledTransports: ['ws'] }

const echo =
  client === 'echo' ? new Echo({ broadcaster: 'reverb', Pusher, key, channelAuthorization, ...server }) : null
const pusher = echo?.connector.pusher ?? new Pusher(key, { cluster: '', channelAuthorization, ...server })
pusher.connection.bind('state_change', ({ current }) =>
  tell('state', { state: current, socket: pusher.connection.socket_id }),
)

const listen = {
  echo: {
    private: (name) =>
      echo
        .private(name)
        .subscribed(() => tell('subscribed'))
        .error(({ status }) => tell('refused', { status }))
        .listen('OrderShipped', (data) => tell('event', { data })),
    presence: (name) =>
      echo
        .join(name)
        .here((members) => tell('here', { members }))
        .joining((member) => tell('joining', { member })),
  },
  pusher: {
    private: (name) =>
      pusher
        .subscribe(`private-${name}`)
        .bind('pusher:subscription_succeeded', () => tell('subscribed'))
        .bind('pusher:subscription_error', ({ status }) => tell('refused', { status }))
        .bind('App\\Events\\OrderShipped', (data) => tell('event', { data })),
    presence: (name) =>
      pusher
        .subscribe(`presence-${name}`)
        .bind('pusher:subscription_succeeded', ({ members }) => tell('here', { members: Object.values(members) }))
        .bind('pusher:member_added', ({ info }) => tell('joining', { member: info })),
  },
}[client]

const commands = {
  private: ({ channel }) => listen.private(channel),
  presence: ({ channel }) => listen.presence(channel),
  post: async ({ path }) => {
    const headers = { 'X-Socket-ID': echo ? echo.socketId() : pusher.connection.socket_id }
    const answer = await fetch(application + path, { method: 'POST', headers })
    tell('posted', { status: answer.status })
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
