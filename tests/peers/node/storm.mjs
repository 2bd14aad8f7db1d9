// Many clients with pusher-js in one process, each on two private channels; every half second one line of JSON tells how
// often the application was asked for an authorization, and how often a channel was subscribed.
import { createHmac, randomUUID } from 'node:crypto'
import Pusher from 'pusher-js'
import { resumable } from '../../../clients/js/dist/echo.js'

const { port, key, secret, clients, helped } = JSON.parse(process.argv[2])
let asked = 0
let subscribed = 0

const customHandler = ({ socketId, channelName }, done) => {
  asked += 1
  const signature = createHmac('sha256', secret).update(`${socketId}:${channelName}`).digest('hex')
  done(null, { auth: `${key}:${signature}` })
}
const plain = {
  Pusher, cluster: '', wsHost: '127.0.0.1', wsPort: port, forceTLS: false, enabledTransports: ['ws'],
  channelAuthorization: { customHandler },
}
for (let number = 0; number < clients; number += 1) {
  const pusher = new Pusher(key, helped ? resumable(plain) : { ...plain, wsPath: `/s/${randomUUID()}` })
  for (const channel of ['private-room', `private-user.${number}`]) {
    pusher.subscribe(channel).bind('pusher:subscription_succeeded', () => (subscribed += 1))
  }
  if (number % 50 === 49) await new Promise((resolve) => setTimeout(resolve, 20))
}
setInterval(() => console.log(JSON.stringify({ asked, subscribed })), 500)
process.stdin.on('end', () => process.exit(0)).resume()
setTimeout(() => process.exit(3), 300_000)
