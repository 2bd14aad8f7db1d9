/**
 * The only place that builds Echo. Key and address come from the portal at run time; channels are authorised
 * through our own API client, so that the CSRF token, an ended session and a restarting portal are treated as
 * everywhere else.
 */
import Echo from 'laravel-echo'
import Pusher from 'pusher-js'
import { Rejected, SignedOut } from '@/api/errors'
import type { RealtimePlace } from '@/api/records'
import { authenticateUser, authorizeChannel } from '@/api/realtime'
import type { ConnectionEvent } from './connection'

export type RealtimeEcho = Echo<'reverb'>

type SocketState = Extract<ConnectionEvent, { type: 'socket' }>['state']

/** Waits between two tries to authorise, in milliseconds; the last one repeats. */
const ASK_AGAIN_MS = [500, 1500, 4000, 8000]

export function buildEcho(place: RealtimePlace): RealtimeEcho {
  const echo: RealtimeEcho = new Echo({
    broadcaster: 'reverb',
    Pusher,
    key: place.key,
    wsHost: place.host,
    wsPort: place.port,
    wssPort: place.port,
    forceTLS: place.scheme === 'https',
    // Without TLS there is no use in trying with it: the page may not even connect there.
    enabledTransports: place.scheme === 'https' ? ['ws', 'wss'] : ['ws'],
    enableStats: false,
    withoutInterceptors: true,
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, answer) => {
        void untilAnswered(
          () => authorizeChannel(socketId, channelName),
          answer,
          () => echo.socketId() === socketId,
        )
      },
    },
    userAuthentication: {
      // Named because Echo's types ask for them; whoever handles it says where it goes.
      endpoint: '/broadcasting/user-auth',
      headers: {},
      customHandler: ({ socketId }, answer) => {
        void untilAnswered(
          () => authenticateUser(socketId),
          answer,
          () => echo.socketId() === socketId,
        )
      },
    },
  })
  // The connection is this user's: the server counts it so, and ends it when the user is blocked. pusher-js says it
  // again on every connection.
  echo.connector.signin()
  return echo
}

/**
 * Asks until there is an answer that will not change: pusher-js asks once per connection only, so a portal that
 * restarts at the wrong moment would leave the channel silent, or the connection nobody's.
 */
async function untilAnswered<T>(
  ask: () => Promise<T>,
  answer: (error: Error | null, given: T | null) => void,
  isCurrent: () => boolean,
): Promise<void> {
  for (let tries = 0; isCurrent(); tries += 1) {
    try {
      const given = await ask()
      if (isCurrent()) answer(null, given)
      return
    } catch (error) {
      if (error instanceof SignedOut || (error instanceof Rejected && error.status < 500)) {
        answer(error, null)
        return
      }
      const wait = ASK_AGAIN_MS[Math.min(tries, ASK_AGAIN_MS.length - 1)]
      await new Promise((resolve) => setTimeout(resolve, wait))
    }
  }
}

/** The server's word that this connection is not wanted any more. */
const UNAUTHORISED = 4009

/** Whether an error of pusher-js is a close with that code. The same code on a single channel closes nothing. */
export function isSentAway(error: unknown): boolean {
  const { type, error: cause } = (error ?? {}) as {
    type?: unknown
    error?: { data?: { code?: unknown } | null } | null
  }
  return type === 'WebSocketError' && cause?.data?.code === UNAUTHORISED
}

/**
 * Tells what happens to the connection, and of being sent away: pusher-js will not connect again by itself then.
 * Returns how to stop listening.
 */
export function watchConnection(
  echo: RealtimeEcho,
  tell: (event: ConnectionEvent) => void,
  sentAway: () => void,
): () => void {
  const connection = echo.connector.pusher.connection
  const onState = ({ current }: { current: SocketState }) => tell({ type: 'socket', state: current, now: Date.now() })
  const onWait = (seconds: number) => tell({ type: 'retryIn', seconds, now: Date.now() })
  // pusher-js reports the close before it becomes "disconnected".
  const onError = (error: unknown) => isSentAway(error) && queueMicrotask(sentAway)
  const onNetwork = () => tell({ type: 'network', hasNetwork: navigator.onLine, now: Date.now() })
  connection.bind('state_change', onState)
  connection.bind('connecting_in', onWait)
  connection.bind('error', onError)
  window.addEventListener('online', onNetwork)
  window.addEventListener('offline', onNetwork)
  tell({ type: 'socket', state: connection.state as SocketState, now: Date.now() })
  return () => {
    connection.unbind('state_change', onState)
    connection.unbind('connecting_in', onWait)
    connection.unbind('error', onError)
    window.removeEventListener('online', onNetwork)
    window.removeEventListener('offline', onNetwork)
  }
}

/** Ends the wait that pusher-js is in and lets it try at once. */
export function retryNow(echo: RealtimeEcho): void {
  echo.connector.pusher.disconnect()
  echo.connector.pusher.connect()
}
