/** Who was sent away comes back if they are still signed in, at a pace, and otherwise stays away. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Rejected, SignedOut, Unreachable } from '@/api/errors'
import { connectionAfter, initialConnection, viewOf } from '@/realtime/connection'
import { isSentAway } from '@/realtime/echo'
import { Readmission, RETURN_EVERY_MS } from '@/realtime/readmission'

beforeEach(() => vi.useFakeTimers())
afterEach(() => vi.useRealTimers())

function door(...answers: (Error | null)[]) {
  const said = { asked: 0, connected: 0, waits: [] as number[] }
  const readmission = new Readmission({
    ask: () => {
      const answer = answers[said.asked] ?? null
      said.asked += 1
      return answer === null ? Promise.resolve() : Promise.reject(answer)
    },
    connect: () => void (said.connected += 1),
    waiting: (ms) => void said.waits.push(ms),
  })
  return { said, readmission }
}

describe('who was sent away', () => {
  it('comes back at once when still signed in', async () => {
    const { said, readmission } = door()
    readmission.ended()
    await vi.advanceTimersByTimeAsync(0)

    expect(said).toEqual({ asked: 1, connected: 1, waits: [] })
  })

  it('stays away when the session is over', async () => {
    for (const error of [new SignedOut('x'), new Rejected('x', 403)]) {
      const { said, readmission } = door(error)
      readmission.ended()
      await vi.advanceTimersByTimeAsync(60_000)

      expect(said).toEqual({ asked: 1, connected: 0, waits: [] })
    }
  })

  it('asks again while nobody answers', async () => {
    const { said, readmission } = door(new Unreachable(), new Unreachable())
    readmission.ended()
    await vi.advanceTimersByTimeAsync(2 * RETURN_EVERY_MS)

    expect(said).toEqual({ asked: 3, connected: 1, waits: [RETURN_EVERY_MS, RETURN_EVERY_MS] })
  })

  it('does not come back more often than the pace allows, however often it is sent away', async () => {
    const { said, readmission } = door()
    for (let times = 0; times < 400; times += 1) {
      readmission.ended()
      await vi.advanceTimersByTimeAsync(100)
    }

    expect(said.connected).toBeLessThanOrEqual(1 + 40_000 / RETURN_EVERY_MS)
  })

  it('keeps away once stopped, even if the answer is under way', async () => {
    const { said, readmission } = door()
    readmission.ended()
    vi.advanceTimersByTime(0)
    readmission.stop()
    await vi.advanceTimersByTimeAsync(60_000)

    expect(said.connected).toBe(0)
  })

  it('comes back before its time when the reader says so', async () => {
    const { said, readmission } = door(new Unreachable())
    readmission.ended()
    await vi.advanceTimersByTimeAsync(1)
    readmission.now()
    await vi.advanceTimersByTimeAsync(1)

    expect(said).toEqual({ asked: 2, connected: 1, waits: [RETURN_EVERY_MS] })
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

  expect(isSentAway(close(4009))).toBe(true)
  for (const other of [
    close(4001),
    close(4200),
    { type: 'PusherError', data: { code: 4009 } },
    { type: 'WebSocketError', error: null },
    null,
    'x',
  ]) {
    expect(isSentAway(other)).toBe(false)
  }
})
