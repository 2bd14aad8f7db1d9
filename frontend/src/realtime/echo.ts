/**
 * Builds Echo, here and nowhere else. Key and address come from the portal at run time. Channels are authorized
 * through our own API client, which handles the CSRF token, an ended session and a restarting portal as for every
 * other request. After a lost connection the page resumes its session.
 */
import Echo from 'laravel-echo'
import Pusher from 'pusher-js'
import { resumable } from '@smartlink/echo'
import { RequestFailed, SignedOut } from '@/api/errors'
import type { RealtimeEndpoint } from '@/api/records'
import { authenticateUser, authorizeChannel } from '@/api/realtime'
import type { ConnectionEvent } from './connection'

export type RealtimeEcho = Echo<'reverb'>

type SocketState = Extract<ConnectionEvent, { type: 'socket' }>['state']

/** Waits between attempts to authorize, in milliseconds; the last one repeats. */
const RETRY_MS = [500, 1500, 4000, 8000]

export function buildEcho(place: RealtimeEndpoint): RealtimeEcho {
  const echo: RealtimeEcho = new Echo(
    resumable({
      broadcaster: 'reverb',
      Pusher,
      key: place.key,
      wsHost: place.host,
      wsPort: place.port,
      wssPort: place.port,
      forceTLS: place.scheme === 'https',
      // Without TLS, wss is pointless: the content security policy would not even allow it.
      enabledTransports: place.scheme === 'https' ? ['ws', 'wss'] : ['ws'],
      enableStats: false,
      withoutInterceptors: true,
      channelAuthorization: {
        customHandler: ({ socketId, channelName }, answer) => {
          void answerWhenFinal(
            () => authorizeChannel(socketId, channelName),
            answer,
            () => echo.socketId() === socketId,
          )
        },
      },
      userAuthentication: {
        // Required by Echo's types; the handler below decides.
        endpoint: '/broadcasting/user-auth',
        headers: {},
        customHandler: ({ socketId }, answer) => {
          void answerWhenFinal(
            () => authenticateUser(socketId),
            answer,
            () => echo.socketId() === socketId,
          )
        },
      },
    }),
  )
  // Signs in on the connection: the server counts the user as online, and closes it when the user is blocked.
  // pusher-js repeats this on every connection.
  echo.connector.signin()
  return echo
}

/**
 * Repeats a request until its outcome is final: pusher-js asks only once per connection, so without this a portal
 * that restarts at the wrong moment would leave the channel silent or the connection unauthenticated.
 */
async function answerWhenFinal<T>(
  request: () => Promise<T>,
  answer: (error: Error | null, response: T | null) => void,
  isCurrent: () => boolean,
): Promise<void> {
  for (let tries = 0; isCurrent(); tries += 1) {
    try {
      const response = await request()
      if (isCurrent()) answer(null, response)
      return
    } catch (error) {
      if (error instanceof SignedOut || (error instanceof RequestFailed && error.status < 500)) {
        answer(error, null)
        return
      }
      const wait = RETRY_MS[Math.min(tries, RETRY_MS.length - 1)]
      await new Promise((resolve) => setTimeout(resolve, wait))
    }
  }
}

/** The code with which the server ends a connection for good. */
const UNAUTHORIZED = 4009

/** Whether an error of pusher-js is a close with that code. On a single channel the same code closes nothing. */
export function isUnauthorizedClose(error: unknown): boolean {
  const { type, error: cause } = (error ?? {}) as {
    type?: unknown
    error?: { data?: { code?: unknown } | null } | null
  }
  return type === 'WebSocketError' && cause?.data?.code === UNAUTHORIZED
}

/**
 * Reports the events of the connection, and when the server ended it for good: then pusher-js does not reconnect by
 * itself. Returns a function that stops listening.
 */
export function watchConnection(
  echo: RealtimeEcho,
  report: (event: ConnectionEvent) => void,
  onUnauthorized: () => void,
): () => void {
  const connection = echo.connector.pusher.connection
  const onState = ({ current }: { current: SocketState }) => report({ type: 'socket', state: current, now: Date.now() })
  const onWait = (seconds: number) => report({ type: 'retryIn', seconds, now: Date.now() })
  // pusher-js reports the close before it becomes "disconnected".
  const onError = (error: unknown) => isUnauthorizedClose(error) && queueMicrotask(onUnauthorized)
  const onNetwork = () => report({ type: 'network', hasNetwork: navigator.onLine, now: Date.now() })
  connection.bind('state_change', onState)
  connection.bind('connecting_in', onWait)
  connection.bind('error', onError)
  window.addEventListener('online', onNetwork)
  window.addEventListener('offline', onNetwork)
  report({ type: 'socket', state: connection.state as SocketState, now: Date.now() })
  return () => {
    connection.unbind('state_change', onState)
    connection.unbind('connecting_in', onWait)
    connection.unbind('error', onError)
    window.removeEventListener('online', onNetwork)
    window.removeEventListener('offline', onNetwork)
  }
}
