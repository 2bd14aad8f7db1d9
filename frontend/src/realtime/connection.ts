/**
 * The state of the connection as pages show it, derived from pusher-js and the browser.
 * Pure: nothing here reconnects. pusher-js does that by itself, unless the server closed for good (`readmission.ts`).
 */

export interface Connection {
  /** The state of pusher-js. */
  socket: 'initialized' | 'connecting' | 'connected' | 'unavailable' | 'disconnected' | 'failed'
  /** Whether the browser has a network. */
  hasNetwork: boolean
  /** When an announced wait ends; null without one. Milliseconds. */
  retryAt: number | null
  /** When the present series of attempts began; null outside one. Milliseconds. */
  attemptsFrom: number | null
  /** Whether it was connected before: then this is a loss, not a start. */
  wasConnected: boolean
}

export type ConnectionEvent =
  | { type: 'socket'; state: Connection['socket']; now: number }
  | { type: 'retryIn'; seconds: number; now: number }
  | { type: 'network'; hasNetwork: boolean; now: number }

export type ConnectionView =
  | { kind: 'connected' }
  | { kind: 'connecting'; again: boolean }
  | { kind: 'waiting'; seconds: number }
  | { kind: 'offline' }
  | { kind: 'ended' }

/** An attempt that takes longer than this has most likely failed, although pusher-js waits for its timeout. */
const ATTEMPT_MS = 2_500

/** pusher-js gives an attempt 15 s, the next 30 s, and each one after that 60 s. */
const ATTEMPT_WINDOWS_MS = [15_000, 30_000]
const LAST_WINDOW_MS = 60_000

export function initialConnection(hasNetwork: boolean): Connection {
  return { socket: 'initialized', hasNetwork, retryAt: null, attemptsFrom: null, wasConnected: false }
}

export function connectionAfter(connection: Connection, event: ConnectionEvent): Connection {
  switch (event.type) {
    case 'socket': {
      const isAttempting = event.state === 'connecting' || event.state === 'unavailable'
      const goesOn = event.state === 'unavailable' && connection.attemptsFrom !== null
      return {
        ...connection,
        socket: event.state,
        wasConnected: connection.wasConnected || event.state === 'connected',
        retryAt: null,
        attemptsFrom: isAttempting ? (goesOn ? connection.attemptsFrom : event.now) : null,
      }
    }
    case 'retryIn':
      return { ...connection, retryAt: event.now + event.seconds * 1000 }
    case 'network': {
      // When the network is back, pusher-js starts a new series at once.
      const begins = event.hasNetwork && connection.attemptsFrom !== null
      return {
        ...connection,
        hasNetwork: event.hasNetwork,
        attemptsFrom: begins ? event.now : connection.attemptsFrom,
      }
    }
  }
}

/** Whether events arrive: not during an announced wait, although pusher-js still says "connected" then. */
export function isUp(connection: Connection): boolean {
  return connection.socket === 'connected' && connection.retryAt === null && connection.hasNetwork
}

export function viewOf(connection: Connection, now: number): ConnectionView {
  if (isUp(connection)) return { kind: 'connected' }
  if (!connection.hasNetwork) return { kind: 'offline' }
  const hasEnded = connection.socket === 'disconnected' || connection.socket === 'failed'
  if (hasEnded && connection.retryAt === null) return { kind: 'ended' }
  const wait = msUntilNextAttempt(connection, now)
  return wait > 0
    ? { kind: 'waiting', seconds: Math.ceil(wait / 1000) }
    : { kind: 'connecting', again: connection.wasConnected }
}

/** 0 while an attempt is under way. */
function msUntilNextAttempt({ retryAt, attemptsFrom }: Connection, now: number): number {
  if (retryAt !== null) return Math.max(0, retryAt - now)
  if (attemptsFrom === null) return 0
  let start = attemptsFrom
  for (let attempt = 0; ; attempt += 1) {
    const next = start + (ATTEMPT_WINDOWS_MS[attempt] ?? LAST_WINDOW_MS)
    if (now < next) return now < start + ATTEMPT_MS ? 0 : next - now
    start = next
  }
}
