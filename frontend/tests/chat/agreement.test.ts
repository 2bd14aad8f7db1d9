/** An old state plus the events that followed is the state fetched again; repeats and late comers change nothing. */
import { describe, expect, it } from 'vitest'
import type { Message, Profile } from '@/api/records'
import { GENERAL, roomWith } from '@/features/chat/rooms'
import {
  chatAfter,
  initialChat,
  nextToSend,
  outgoingIn,
  roomIn,
  unreadIn,
  type ChatEvent,
  type ChatState,
  type Outgoing,
} from '@/features/chat/state'

const ME = 1
const person = (id: number): Profile => ({ id, name: ['', 'Ana', 'Ben', 'Cyn'][id] ?? 'Dan' })

function message(id: number, from: number, to: number | null = null, text = `m${id}`): Message {
  const at = new Date(1_700_000_000_000 + id * 1000).toISOString()
  const content = { message: text, version: 1, edited_at: null, deleted_at: null }
  const base = { ...content, id, user_id: from, recipient_id: to, is_read: false, read_at: null, delivered_at: null }
  const made = { ...base, created_at: at, updated_at: at, user: person(from) }
  return to === null ? made : { ...made, recipient: person(to) }
}

const after = (state: ChatState, ...events: ChatEvent[]) => events.reduce(chatAfter, state)
const loaded = (messages: Message[]): ChatEvent => ({ type: 'roomLoaded', room: GENERAL, messages, hasOlder: false })
const arrived = (one: Message): ChatEvent => ({ type: 'messageArrived', message: one })
const ids = (state: ChatState, room: Parameters<typeof roomIn>[1] = GENERAL) =>
  roomIn(state, room).messages.map(({ id }) => id)

function shuffled<T>(list: readonly T[], seed: number): T[] {
  let random = seed
  return list
    .map((item) => {
      random = (random * 48_271) % 2_147_483_647
      return { item, at: random }
    })
    .sort((one, other) => one.at - other.at)
    .map(({ item }) => item)
}

describe('messages of a room', () => {
  const all = Array.from({ length: 12 }, (_, index) => message(index + 1, (index % 3) + 1))

  it.each([1, 2, 3, 4, 5])('are the fetched ones, whatever order and repeats the events came in (%i)', (seed) => {
    const events = shuffled([...all.slice(4), ...all.slice(4, 8)], seed).map(arrived)
    const lived = after(initialChat(ME), loaded(all.slice(0, 4)), ...events)

    expect(ids(lived)).toEqual(ids(after(initialChat(ME), loaded(all))))
  })

  it('join what a page of history brings, without a double', () => {
    const lived = after(initialChat(ME), { ...loaded(all.slice(6)), hasOlder: true } as ChatEvent, {
      type: 'olderLoaded',
      room: GENERAL,
      messages: all.slice(0, 7),
      hasOlder: false,
    })

    expect(ids(lived)).toEqual(all.map(({ id }) => id))
  })

  it('are replaced when a list loaded again does not touch what was there', () => {
    const old = after(initialChat(ME), { ...loaded(all.slice(0, 3)), hasOlder: true } as ChatEvent)
    const again = after(old, { ...loaded(all.slice(8)), hasOlder: true } as ChatEvent)

    expect(ids(again)).toEqual([9, 10, 11, 12])
    expect(roomIn(again, GENERAL).hasOlder).toBe(true)
  })
})

describe('receipts', () => {
  it('stay, even if an older copy of the message comes late', () => {
    const sent = message(5, ME, 2)
    const read = { ...sent, is_read: true, read_at: sent.updated_at }
    const state = after(
      initialChat(ME),
      { type: 'roomLoaded', room: roomWith(2), messages: [sent], hasOlder: false },
      { type: 'messageWasRead', message: read },
      arrived(sent),
    )

    expect(roomIn(state, roomWith(2)).messages[0]?.is_read).toBe(true)
  })

  it.each([true, false])('are the same in either order, the delivery first: %s', (isFirst) => {
    const sent = message(5, ME, 2)
    const delivered = { ...sent, delivered_at: '2026-05-01T10:00:00Z' }
    const read = { ...delivered, is_read: true, read_at: '2026-05-01T10:01:00Z', updated_at: '2026-05-01T10:01:00Z' }
    const events: ChatEvent[] = [
      { type: 'messageWasDelivered', message: delivered },
      { type: 'messageWasRead', message: read },
    ]
    const state = after(
      initialChat(ME),
      { type: 'roomLoaded', room: roomWith(2), messages: [sent], hasOlder: false },
      ...(isFirst ? events : events.reverse()),
      arrived(sent),
    )

    expect(roomIn(state, roomWith(2)).messages).toEqual([read])
  })

  const sent = message(5, ME, 2)
  const wasRead: ChatEvent = { type: 'messageWasRead', message: { ...sent, is_read: true, read_at: sent.updated_at } }
  const direct = (messages: Message[], hasOlder = false): ChatEvent => ({
    type: 'roomLoaded',
    room: roomWith(2),
    messages,
    hasOlder,
  })
  const reads = (state: ChatState) => roomIn(state, roomWith(2)).messages.map(({ id, is_read }) => [id, is_read])

  it('may come before the answer to sending', () => {
    const outgoing: Outgoing = {
      key: 'k',
      room: roomWith(2),
      text: 'm5',
      status: 'waiting',
      problem: null,
      tries: 0,
      made_at: '',
      echo: null,
    }
    const underWay = after(
      initialChat(ME),
      direct([message(4, 2, ME), message(6, 2, ME)]),
      { type: 'queued', outgoing },
      { type: 'sending', key: 'k' },
      wasRead,
    )
    expect(outgoingIn(underWay, roomWith(2))).toEqual([])
    const state = after(underWay, { type: 'sent', key: 'k', message: sent })

    expect(reads(state)).toEqual([
      [4, false],
      [5, true],
      [6, false],
    ])
  })

  it('may come before the event of a message that was written in another tab', () => {
    const state = after(initialChat(ME), direct([]), wasRead, arrived(sent))

    expect(reads(state)).toEqual([[5, true]])
    expect(state.conversations[0]?.last_message).toMatchObject({ id: 5, is_read: true })
  })

  it.each([true, false])('may come while the list is on its way (%s)', (hasOlder) => {
    const state = after(
      initialChat(ME),
      { type: 'roomLoading', room: roomWith(2) },
      wasRead,
      direct([message(4, 2, ME), sent], hasOlder),
    )

    expect(reads(state)).toEqual([
      [4, false],
      [5, true],
    ])
  })

  it('bring nothing into the list that belongs into the history', () => {
    const state = after(initialChat(ME), direct([message(8, 2, ME)], true), wasRead)

    expect(reads(state)).toEqual([[8, false]])
  })
})

describe('unread messages', () => {
  it('count those of others, and none after they were seen', () => {
    let state = after(
      initialChat(ME),
      { type: 'conversationsLoaded', list: [] },
      arrived(message(7, 2, ME)),
      arrived(message(8, 2, ME)),
    )
    expect(unreadIn(state, roomWith(2))).toBe(2)
    state = after(state, arrived(message(9, ME, 2)))
    expect(unreadIn(state, roomWith(2))).toBe(2)
    state = after(state, { type: 'roomRead', room: roomWith(2), upTo: 9 })

    expect(unreadIn(state, roomWith(2))).toBe(0)
  })

  it('are not counted twice when an event is repeated', () => {
    const state = after(initialChat(ME), arrived(message(7, 2, ME)), arrived(message(7, 2, ME)))

    expect(unreadIn(state, roomWith(2))).toBe(1)
  })
})

describe('what is on its way', () => {
  const queued = (key: string, text: string): ChatEvent => ({
    type: 'queued',
    outgoing: { key, room: GENERAL, text, status: 'waiting', problem: null, tries: 0, made_at: '', echo: null },
  })

  it('goes out one by one in the order it was written', () => {
    let state = after(initialChat(ME), loaded([]), queued('a', 'one'), queued('b', 'two'))
    expect(nextToSend(state)?.key).toBe('a')
    state = after(state, { type: 'sending', key: 'a' })
    expect(nextToSend(state)).toBeNull()
    state = after(state, { type: 'sent', key: 'a', message: message(1, ME, null, 'one') })

    expect(nextToSend(state)?.key).toBe('b')
    expect(ids(state)).toEqual([1])
  })

  it('is shown once when its event comes before its answer', () => {
    const mine = message(4, ME, null, 'one')
    let state = after(initialChat(ME), loaded([]), queued('a', 'one'), { type: 'sending', key: 'a' }, arrived(mine))
    expect(outgoingIn(state, GENERAL)).toEqual([])
    state = after(state, { type: 'sent', key: 'a', message: mine })

    expect(ids(state)).toEqual([4])
    expect(state.outgoing).toEqual([])
  })

  it('waits for its writer once it failed', () => {
    let state = after(
      initialChat(ME),
      queued('a', 'one'),
      { type: 'sending', key: 'a' },
      { type: 'sendFailed', key: 'a', problem: 'No.' },
    )
    expect(nextToSend(state)).toBeNull()
    expect(outgoingIn(state, GENERAL)[0]?.problem).toBe('No.')
    state = after(state, { type: 'retried', key: 'a' })
    expect(nextToSend(state)?.key).toBe('a')

    expect(after(state, { type: 'discarded', key: 'a' }).outgoing).toEqual([])
  })
})

it('shows another name wherever the person is shown, as a state fetched again does', () => {
  const of = (name: string) => {
    const ben = { id: 2, name }
    const toAll = { ...message(1, 2), user: ben }
    const toMe = { ...message(2, 2, ME), user: ben }
    const mine = { ...message(3, ME, 2), recipient: ben }
    return after(
      initialChat(ME),
      loaded([toAll, message(4, 3)]),
      { type: 'roomLoaded', room: roomWith(2), messages: [toMe, mine], hasOlder: false },
      { type: 'conversationsLoaded', list: [{ user: ben, last_message: mine }] },
    )
  }

  expect(after(of('Ben'), { type: 'renamed', person: { id: 2, name: 'Benjamin' } })).toEqual(of('Benjamin'))
})
