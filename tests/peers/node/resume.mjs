// Unmodified pusher-js, laravel-echo, echo-vue and echo-react, with the JavaScript helper or only with `wsPath`. Reads one
// JSON command per line, writes one JSON observation per line. The application's endpoint runs here, and counts.
import { createHmac, randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'
import * as react from '@laravel/echo-react'
import * as vue from '@laravel/echo-vue'
import Echo from 'laravel-echo'
import Server from 'pusher'
import Pusher from 'pusher-js'
import { resumable } from '../../../clients/js/dist/echo.js'

const { port, key, secret, library, helped, authorization, masterKey } = JSON.parse(process.argv[2])
const tell = (what, more = {}) => console.log(JSON.stringify({ what, ...more }))
const sign = (text) => `${key}:${createHmac('sha256', secret).update(text).digest('hex')}`
const server = new Server({ appId: '1', key, secret, host: '127.0.0.1', encryptionMasterKeyBase64: masterKey })
let member = { user_id: '7' }
let isForbidden = false

const authorize = (socketId, channel) => {
  tell('asked', { channel })
  if (isForbidden) return null
  if (channel.startsWith('private-encrypted-')) return server.authorizeChannel(socketId, channel)
  if (channel.startsWith('presence-') || member.expires_at) {
    const channel_data = JSON.stringify(member)
    return { auth: sign(`${socketId}:${channel}:${channel_data}`), channel_data }
  }
  return { auth: sign(`${socketId}:${channel}`) }
}
const endpoint = createServer((request, response) => {
  let body = ''
  request.on('data', (part) => (body += part))
  request.on('end', () => {
    const form = new URLSearchParams(body)
    const answer = authorize(form.get('socket_id'), form.get('channel_name'))
    response.writeHead(answer ? 200 : 403, { 'Content-Type': 'application/json' }).end(JSON.stringify(answer))
  })
})
await new Promise((resolve) => endpoint.listen(0, '127.0.0.1', resolve))
const url = `http://127.0.0.1:${endpoint.address().port}/auth`

/** The ways in which pusher-js lets an application authorize. */
const waysToAuthorize = {
  customHandler: {
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, done) => {
        const answer = authorize(socketId, channelName)
        done(answer ? null : new Error('forbidden'), answer)
      },
    },
  },
  endpoint: { channelAuthorization: { endpoint: url, transport: 'ajax' } },
  authEndpoint: { authEndpoint: url },
  authorizer: {
    authorizer: (channel) => ({
      authorize: (socketId, done) => {
        const answer = authorize(socketId, channel.name)
        done(answer ? null : new Error('forbidden'), answer)
      },
    }),
  },
}

const plain = {
  Pusher,
  wsHost: '127.0.0.1',
  wsPort: port,
  wssPort: port,
  forceTLS: false,
  enabledTransports: ['ws'],
  cluster: '',
  ...waysToAuthorize[authorization],
}
const options = helped
  ? resumable({ ...plain, onGap: (channel, _reload, reason) => tell('gap', { channel, reason }) })
  : { ...plain, wsPath: `/s/${randomUUID()}` }

const configured = (of) => {
  of.configureEcho({ broadcaster: 'reverb', key, ...options })
  return of.echo().connector.pusher
}
const pusher = {
  pusher: () => new Pusher(key, options),
  echo: () => new Echo({ broadcaster: 'reverb', key, ...options }).connector.pusher,
  vue: () => configured(vue),
  react: () => configured(react),
}[library]()

pusher.connection.bind('state_change', ({ current }) => tell('state', { state: current }))

const commands = {
  subscribe: ({ channel: name }) => {
    const channel = pusher.subscribe(name)
    channel.bind('pusher:subscription_succeeded', () => tell('subscribed', { channel: name }))
    channel.bind('pusher:subscription_error', ({ type, status }) => tell('refused', { channel: name, type, status }))
    channel.bind('pusher:resume_success', ({ replayed }) => tell('resumed', { channel: name, replayed }))
    channel.bind('pusher:resume_failed', ({ reason }) => tell('failed', { channel: name, reason }))
    channel.bind('news', (data) => tell('news', { channel: name, data }))
    channel.bind('client-news', (data) => tell('whisper', { channel: name, data }))
  },
  unsubscribe: ({ channel }) => pusher.unsubscribe(channel),
  whisper: ({ channel, data }) => pusher.channel(channel).trigger('client-news', data),
  reconnect: () => {
    pusher.disconnect()
    pusher.connect()
  },
  grant: ({ member: granted }) => {
    member = granted
    tell('granted')
  },
  forbid: () => {
    isForbidden = true
    tell('granted')
  },
  end: () => process.exit(0),
}
createInterface({ input: process.stdin }).on('line', (line) => {
  const command = JSON.parse(line)
  commands[command.do](command)
})
setTimeout(() => process.exit(3), 180_000)
