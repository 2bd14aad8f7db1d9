/** Reconnects accounts that are still signed in, at a limited rate, and no others. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { RequestFailed, SignedOut, Unreachable } from '@/api/errors'
import { connectionAfter, initialConnection, viewOf } from '@/realtime/connection'
import { isUnauthorizedClose } from '@/realtime/echo'
import { Reconnector, RECONNECT_EVERY_MS } from '@/realtime/reconnector'

beforeEach(() => vi.useFakeTimers())
afterEach(() => vi.useRealTimers())

function reconnectorWith(...answers: (Error | null)[]) {
  const calls = { checked: 0, connected: 0, waits: [] as number[] }
  const reconnector = new Reconnector({
    checkSession: () => {
      const answer = answers[calls.checked] ?? null
      calls.checked += 1
      return answer === null ? Promise.resolve() : Promise.reject(answer)
    },
    connect: () => void (calls.connected += 1),
    retryIn: (ms) => void calls.waits.push(ms),
  })
  return { calls, reconnector }
}

describe('an account whose connection the server ended', () => {
  it('reconnects at once if it is still signed in', async () => {
    const { calls, reconnector } = reconnectorWith()
    reconnector.ended()
    await vi.advanceTimersByTimeAsync(0)

    expect(calls).toEqual({ checked: 1, connected: 1, waits: [] })
  })

  it('does not reconnect once the session is over', async () => {
    for (const error of [new SignedOut('x'), new RequestFailed('x', 403)]) {
      const { calls, reconnector } = reconnectorWith(error)
      reconnector.ended()
      await vi.advanceTimersByTimeAsync(60_000)

      expect(calls).toEqual({ checked: 1, connected: 0, waits: [] })
    }
  })

  it('retries while the server is unreachable', async () => {
    const { calls, reconnector } = reconnectorWith(new Unreachable(), new Unreachable())
    reconnector.ended()
    await vi.advanceTimersByTimeAsync(2 * RECONNECT_EVERY_MS)

    expect(calls).toEqual({ checked: 3, connected: 1, waits: [RECONNECT_EVERY_MS, RECONNECT_EVERY_MS] })
  })

  it('does not reconnect more often than allowed, however often the connection is ended', async () => {
    const { calls, reconnector } = reconnectorWith()
    for (let times = 0; times < 400; times += 1) {
      reconnector.ended()
      await vi.advanceTimersByTimeAsync(100)
    }

    expect(calls.connected).toBeLessThanOrEqual(1 + 40_000 / RECONNECT_EVERY_MS)
  })

  it('keeps away once stopped, even if the answer is under way', async () => {
    const { calls, reconnector } = reconnectorWith()
    reconnector.ended()
    vi.advanceTimersByTime(0)
    reconnector.stop()
    await vi.advanceTimersByTimeAsync(60_000)

    expect(calls.connected).toBe(0)
  })

  it('comes back before its time when the reader says so', async () => {
    const { calls, reconnector } = reconnectorWith(new Unreachable())
    reconnector.ended()
    await vi.advanceTimersByTimeAsync(1)
    reconnector.now()
    await vi.advanceTimersByTimeAsync(1)

    expect(calls).toEqual({ checked: 2, connected: 1, waits: [RECONNECT_EVERY_MS] })
  })
})

it('sees the wait although pusher-js calls itself disconnected', () => {
  const ended = connectionAfter(initialConnection(true), { type: 'socket', state: 'disconnected', now: 0 })

  expect(viewOf(ended, 0)).toEqual({ kind: 'ended' })
  expect(viewOf(connectionAfter(ended, { type: 'retryIn', seconds: 4, now: 0 }), 1_000)).toEqual({
    kind: 'waiting',
    seconds: 3,
  })
})

it('tells a close with 4009 from other closes, and from a channel that was denied', () => {
  const close = (code: number) => ({
    type: 'WebSocketError',
    error: { type: 'PusherError', data: { code, message: 'x' } },
  })

  expect(isUnauthorizedClose(close(4009))).toBe(true)
  for (const other of [
    close(4001),
    close(4200),
    { type: 'PusherError', data: { code: 4009 } },
    { type: 'WebSocketError', error: null },
    null,
    'x',
  ]) {
    expect(isUnauthorizedClose(other)).toBe(false)
  }
})
