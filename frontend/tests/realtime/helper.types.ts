/** What compiles with the helper, and what must not. Not run: `npm run check` is the test. */
import Echo from 'laravel-echo'
import Pusher from 'pusher-js'
import { resumable } from '@smartlink/echo'

export const echo: Echo<'reverb'> = new Echo(
  resumable({
    broadcaster: 'reverb',
    Pusher,
    key: 'key',
    wsHost: 'localhost',
    enabledTransports: ['ws', 'wss'],
    onGap: (channel, reload, reason) => {
      const texts: string[] = [channel, reason]
      if (texts.length) reload()
    },
  }),
)

export const pusher: Pusher = new Pusher('key', resumable({ Pusher, cluster: '', wsHost: 'localhost' }))

// @ts-expect-error A token is made by the helper, and belongs behind the path.
resumable({ Pusher, wsPath: 7 })

// @ts-expect-error The channel is a text.
resumable({ Pusher, onGap: (channel: number) => channel })
