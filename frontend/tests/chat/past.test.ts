/** A piece of the past stands apart until nothing lies between it and the present. */
import { describe, expect, it } from 'vitest'
import { pastOf, touches, withMore } from '@/features/chat/past'
import { GENERAL } from '@/features/chat/rooms'
import { chatAfter, initialChat, roomIn, type ChatEvent } from '@/features/chat/state'
import { ana, said } from '../records'

const messages = (...ids: number[]) => ids.map((id) => said({ id }))
const after = (...events: ChatEvent[]) => events.reduce(chatAfter, initialChat(ana.id))
const present = (...ids: number[]) =>
  after({ type: 'roomLoaded', room: GENERAL, messages: messages(...ids), hasOlder: true })

describe('a piece of the past', () => {
  it.each([
    [[1, 2], [8, 9], false],
    [[6, 7, 8], [8, 9], true],
    [[1, 2], [], true],
  ])('%j touches the present %j: %j', (past, now, wanted) => {
    expect(touches(messages(...past), roomIn(present(...now), GENERAL))).toBe(wanted)
  })

  it('touches nothing that is not loaded', () => {
    expect(touches(messages(1), roomIn(initialChat(1), GENERAL))).toBe(false)
  })

  it('grows to both sides, each message once', () => {
    const past = withMore(withMore(pastOf(GENERAL, messages(5, 6), true), messages(6, 7)), messages(3, 4))

    expect(past.messages.map(({ id }) => id)).toEqual([3, 4, 5, 6, 7])
  })

  it('joins the present without a gap and without a double', () => {
    const joined = chatAfter(present(8, 9), {
      type: 'pastJoined',
      room: GENERAL,
      messages: messages(5, 6, 7, 8),
      hasOlder: false,
    })

    expect(roomIn(joined, GENERAL).messages.map(({ id }) => id)).toEqual([5, 6, 7, 8, 9])
    expect(roomIn(joined, GENERAL).hasOlder).toBe(false)
  })
})
