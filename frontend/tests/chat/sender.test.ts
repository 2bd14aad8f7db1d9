import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { ValidationFailed, SignedOut, RateLimited, Unreachable } from '@/api/errors'
import type { Message } from '@/api/records'
import { GENERAL } from '@/features/chat/rooms'
import { Sender } from '@/features/chat/sender'
import { chatAfter, initialChat, roomIn, type ChatState, type Outgoing } from '@/features/chat/state'
import { ana, said } from '../records'

beforeEach(() => vi.useFakeTimers())
afterEach(() => vi.useRealTimers())

/** A sender whose server answers each request with the next of `answers`; after them, with a message. */
function sending(answers: (Error | 'ok')[] = []) {
  let state: ChatState = chatAfter(initialChat(ana.id), {
    type: 'roomLoaded',
    room: GENERAL,
    messages: [],
    hasOlder: false,
  })
  const world = {
    hasNetwork: true,
    isConnected: true,
    sent: [] as string[],
    keys: [] as string[],
    slowed: [] as (number | null)[],
  }
  const sender = new Sender({
    state: () => state,
    dispatch: (event) => (state = chatAfter(state, event)),
    send: async (one): Promise<Message> => {
      world.keys.push(one.key)
      const answer = answers.shift() ?? 'ok'
      if (answer !== 'ok') throw answer
      world.sent.push(one.text)
      return said({ id: world.sent.length, by: ana, text: one.text })
    },
    canTry: () => world.hasNetwork,
    isConnected: () => world.isConnected,
    slowedUntil: (time) => world.slowed.push(time),
  })
  const write = (...texts: string[]) => {
    for (const text of texts) {
      const outgoing: Outgoing = {
        key: `key of ${text}`,
        room: GENERAL,
        text,
        status: 'waiting',
        problem: null,
        tries: 0,
        made_at: '2026-05-01T09:00:00Z',
        echo: null,
      }
      state = chatAfter(state, { type: 'queued', outgoing })
    }
    sender.pump()
  }
  const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms)
  return { world, sender, write, pass, outgoing: () => state.outgoing, messages: () => roomIn(state, GENERAL).messages }
}

it('sends what was written offline in its order when the network is back', async () => {
  const { world, sender, write, pass, messages } = sending()
  world.hasNetwork = false
  write('one', 'two', 'three')
  await pass(60_000)
  expect(world.sent).toEqual([])

  world.hasNetwork = true
  sender.resume()
  await pass(0)

  expect(world.sent).toEqual(['one', 'two', 'three'])
  expect(messages()).toHaveLength(3)
})

it('tries again with the same key, so that nothing doubles', async () => {
  const { world, write, pass } = sending([new Unreachable(), new Unreachable()])
  write('one')
  await pass(5_000)

  expect(world.keys).toEqual(['key of one', 'key of one', 'key of one'])
  expect(world.sent).toEqual(['one'])
})

it('gives up after three tries while everything else works, and sends the next', async () => {
  const { write, pass, outgoing, world } = sending([new Unreachable(), new Unreachable(), new Unreachable()])
  write('one', 'two')
  await pass(10_000)

  expect(outgoing()).toMatchObject([{ text: 'one', status: 'failed' }])
  expect(world.sent).toEqual(['two'])
})

it('waits without end while the server is away', async () => {
  const { world, write, pass, outgoing } = sending(Array.from({ length: 6 }, () => new Unreachable()))
  world.isConnected = false
  write('one')
  await pass(40_000)
  expect(outgoing()).toMatchObject([{ status: 'waiting' }])

  await pass(60_000)
  expect(world.sent).toEqual(['one'])
})

it('waits as long as the server says when it is too often, and says so', async () => {
  const { world, write, pass } = sending([new RateLimited('Too many attempts.', 4)])
  write('one')
  await pass(3_999)
  expect(world.sent).toEqual([])
  expect(world.slowed).toHaveLength(1)

  await pass(1)
  expect(world.sent).toEqual(['one'])
  expect(world.slowed.at(-1)).toBeNull()
})

it('leaves what the server refuses to its writer, with the reason', async () => {
  const { write, pass, outgoing } = sending([
    new ValidationFailed('Invalid.', { message: ['The message is too long.'] }),
  ])
  write('one')
  await pass(0)

  expect(outgoing()).toMatchObject([{ status: 'failed', problem: 'The message is too long.' }])
})

it('keeps what was not sent when the session ends', async () => {
  const { world, write, pass, outgoing } = sending([new SignedOut('Unauthenticated.')])
  write('one')
  await pass(60_000)

  expect(world.keys).toHaveLength(1)
  expect(outgoing()).toMatchObject([{ status: 'waiting' }])
})
