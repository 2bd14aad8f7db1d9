import { describe, expect, it } from 'vitest'
import type { RoomUnread } from '@/api/records'
import { GENERAL, roomWith } from '@/features/chat/rooms'
import {
  chatAfter,
  initialChat,
  nextToSend,
  outgoingIn,
  roomIn,
  unreadIn,
  unreadTotal,
  type ChatEvent,
  type ChatState,
  type Outgoing,
} from '@/features/chat/state'
import { ana, ben, eve, said } from '../records'

const after = (state: ChatState, ...events: ChatEvent[]) => events.reduce(chatAfter, state)
const start = () => initialChat(ana.id)
const idsIn = (state: ChatState, room = GENERAL) => roomIn(state, room).messages.map(({ id }) => id)
const loaded = (messages: ReturnType<typeof said>[], room = GENERAL, hasOlder = false): ChatEvent => ({
  type: 'roomLoaded',
  room,
  messages,
  hasOlder,
})

const answer = (change: Partial<RoomUnread>): RoomUnread => ({
  peer_id: null,
  unread_count: 0,
  first_unread_id: null,
  last_message_id: 0,
  ...change,
})

function outgoing(key: string, change: Partial<Outgoing> = {}): Outgoing {
  return {
    key,
    room: GENERAL,
    text: `text of ${key}`,
    status: 'waiting',
    problem: null,
    tries: 0,
    made_at: '2026-05-01T09:00:00Z',
    echo: null,
    ...change,
  }
}

describe('an old state and the events that followed', () => {
  it('equal the general chat fetched again', () => {
    const old = after(start(), loaded([said({ id: 1 }), said({ id: 2 })]))

    const followed = after(
      old,
      { type: 'messageArrived', message: said({ id: 3 }) },
      { type: 'messageArrived', message: said({ id: 4, by: ana }) },
    )

    const again = after(start(), loaded([1, 2, 3].map((id) => said({ id })).concat(said({ id: 4, by: ana }))))
    expect(roomIn(followed, GENERAL)).toEqual(roomIn(again, GENERAL))
  })

  it('equal a direct conversation fetched again, receipts included', () => {
    const room = roomWith(ben.id)
    const mine = said({ id: 7, by: ana, to: ben })
    const theirs = said({ id: 8, by: ben, to: ana })
    const conversations: ChatEvent = {
      type: 'conversationsLoaded',
      list: [{ user: ben, last_message: mine }],
    }
    const old = after(start(), conversations, loaded([mine], room))

    const followed = after(
      old,
      { type: 'messageArrived', message: theirs },
      { type: 'messageWasRead', message: { ...mine, is_read: true, read_at: '2026-05-01T10:00:00Z' } },
    )

    const read = { ...mine, is_read: true, read_at: '2026-05-01T10:00:00Z' }
    const again = after(
      start(),
      { type: 'conversationsLoaded', list: [{ user: ben, last_message: theirs }] },
      loaded([read, theirs], room),
      {
        type: 'unreadLoaded',
        list: [answer({ peer_id: ben.id, unread_count: 1, first_unread_id: 8, last_message_id: 8 })],
        asked: {},
      },
    )
    expect(followed).toEqual(again)
  })
})

describe('messages', () => {
  it('are kept once and in order of id, however they come', () => {
    const state = after(
      start(),
      loaded([said({ id: 5 })]),
      ...[7, 6, 7, 5].map((id): ChatEvent => ({ type: 'messageArrived', message: said({ id }) })),
    )

    expect(idsIn(state)).toEqual([5, 6, 7])
  })

  it('stay read when an older copy comes late', () => {
    const room = roomWith(ben.id)
    const read = said({ id: 1, by: ana, to: ben, isRead: true })
    const state = after(start(), loaded([read], room), {
      type: 'messageArrived',
      message: said({ id: 1, by: ana, to: ben }),
    })

    expect(roomIn(state, room).messages[0]).toMatchObject({ is_read: true, read_at: read.read_at })
  })

  it('join a list loaded again when the two touch', () => {
    const state = after(
      start(),
      loaded(
        [1, 2, 3].map((id) => said({ id })),
        GENERAL,
        false,
      ),
      loaded(
        [3, 4].map((id) => said({ id })),
        GENERAL,
        true,
      ),
    )

    expect(idsIn(state)).toEqual([1, 2, 3, 4])
    expect(roomIn(state, GENERAL).hasOlder).toBe(false)
  })

  it('give way to a list loaded again when there is a hole between them, but for what is newer', () => {
    const state = after(
      start(),
      loaded(
        [1, 2].map((id) => said({ id })),
        GENERAL,
        false,
      ),
      { type: 'messageArrived', message: said({ id: 60 }) },
      loaded(
        [50, 51].map((id) => said({ id })),
        GENERAL,
        true,
      ),
    )

    expect(idsIn(state)).toEqual([50, 51, 60])
    expect(roomIn(state, GENERAL).hasOlder).toBe(true)
  })

  it('are cut back in a page that is open for days, and can be fetched again', () => {
    const many = Array.from({ length: 401 }, (_, index) => said({ id: index + 1 }))
    const state = after(start(), loaded(many), { type: 'trimmed', room: GENERAL })

    expect(idsIn(state)[0]).toBe(202)
    expect(idsIn(state).at(-1)).toBe(401)
    expect(roomIn(state, GENERAL).hasOlder).toBe(true)
  })

  it('come in above when older ones are loaded', () => {
    const state = after(start(), loaded([said({ id: 9 })], GENERAL, true), {
      type: 'olderLoaded',
      room: GENERAL,
      messages: [said({ id: 7 }), said({ id: 8 })],
      hasOlder: false,
    })

    expect(idsIn(state)).toEqual([7, 8, 9])
    expect(roomIn(state, GENERAL)).toMatchObject({ hasOlder: false, older: 'idle' })
  })
})

describe('unread messages', () => {
  it('are those of others, from where the server counts on', () => {
    const state = after(start(), loaded([said({ id: 1 }), said({ id: 2, by: ana }), said({ id: 3 })]), {
      type: 'unreadLoaded',
      list: [answer({ unread_count: 0, first_unread_id: null, last_message_id: 1 })],
      asked: {},
    })

    expect(state.unread[GENERAL]).toEqual({ count: 1, first: 3, upTo: 3 })
  })

  it('are counted once, even if the event comes twice', () => {
    const message = said({ id: 4, by: ben, to: ana })
    const state = after(start(), { type: 'messageArrived', message }, { type: 'messageArrived', message })

    expect(unreadIn(state, roomWith(ben.id))).toBe(1)
    expect(unreadTotal(state)).toBe(1)
  })

  it('are gone when read, and stay so until more arrive', () => {
    const room = roomWith(ben.id)
    const read = after(
      start(),
      { type: 'messageArrived', message: said({ id: 4, by: ben, to: ana }) },
      { type: 'roomRead', room, upTo: 4 },
      { type: 'messageArrived', message: said({ id: 4, by: ben, to: ana }) },
    )
    expect(unreadIn(read, room)).toBe(0)

    const more = after(read, { type: 'messageArrived', message: said({ id: 6, by: ben, to: ana }) })
    expect(more.unread[room]).toEqual({ count: 1, first: 6, upTo: 6 })
  })

  it('of which a part was read are what the server says, and what came later', () => {
    const state = after(start(), loaded([said({ id: 7 }), said({ id: 8 }), said({ id: 9 })]), {
      type: 'unreadChanged',
      room: answer({ unread_count: 2, first_unread_id: 7, last_message_id: 8 }),
    })

    expect(state.unread[GENERAL]).toEqual({ count: 3, first: 7, upTo: 9 })
  })

  it('in a room that the server does not list are none, unless they arrived in the meantime', () => {
    const old = after(start(), { type: 'messageArrived', message: said({ id: 4, by: ben, to: ana }) })
    const late = after(old, { type: 'messageArrived', message: said({ id: 5, by: eve, to: ana }) })

    const state = after(late, { type: 'unreadLoaded', list: [], asked: old.unread })

    expect([unreadIn(state, roomWith(ben.id)), unreadIn(state, roomWith(eve.id))]).toEqual([0, 1])
  })
})

describe('conversations', () => {
  it('stand with the newest on top, and a new one opened above all', () => {
    const state = after(
      start(),
      { type: 'messageArrived', message: said({ id: 1, by: ben, to: ana }) },
      { type: 'messageArrived', message: said({ id: 2, by: ana, to: eve }) },
      { type: 'conversationOpened', person: { id: 4, name: 'Dan' } },
    )

    expect(state.conversations.map(({ user }) => user.name)).toEqual(['Dan', 'Eve', 'Ben'])
  })

  it('keep the newer message when an older list is loaded', () => {
    const state = after(
      start(),
      { type: 'messageArrived', message: said({ id: 9, by: ben, to: ana }) },
      {
        type: 'conversationsLoaded',
        list: [{ user: ben, last_message: said({ id: 8, by: ben, to: ana }) }],
      },
    )

    expect(state.conversations[0]).toMatchObject({ last_message: { id: 9 } })
  })
})

describe('what is on its way', () => {
  it('goes out in the order it was written, one at a time', () => {
    const state = after(
      start(),
      { type: 'queued', outgoing: outgoing('a') },
      { type: 'queued', outgoing: outgoing('b') },
    )

    expect(nextToSend(state)?.key).toBe('a')
    expect(nextToSend(after(state, { type: 'sending', key: 'a' }))).toBeNull()
  })

  it('does not hold up the others when it failed', () => {
    const state = after(
      start(),
      { type: 'queued', outgoing: outgoing('a') },
      { type: 'queued', outgoing: outgoing('b') },
      { type: 'sending', key: 'a' },
      { type: 'sendFailed', key: 'a', problem: 'Too long.' },
    )

    expect(nextToSend(state)?.key).toBe('b')
    expect(nextToSend(after(state, { type: 'discarded', key: 'b' }, { type: 'retried', key: 'a' }))?.key).toBe('a')
  })

  it('becomes the message in its place, under the same key', () => {
    const state = after(
      start(),
      loaded([]),
      { type: 'queued', outgoing: outgoing('a') },
      { type: 'sending', key: 'a' },
      { type: 'sent', key: 'a', message: said({ id: 3, by: ana, text: 'text of a' }) },
    )

    expect(outgoingIn(state, GENERAL)).toEqual([])
    expect(idsIn(state)).toEqual([3])
    expect(roomIn(state, GENERAL).rowKeys[3]).toBe('a')
  })

  it('is not shown twice when its event is faster than its answer', () => {
    const state = after(
      start(),
      loaded([]),
      { type: 'queued', outgoing: outgoing('a') },
      { type: 'sending', key: 'a' },
      { type: 'messageArrived', message: said({ id: 3, by: ana, text: 'text of a' }) },
    )

    expect(outgoingIn(state, GENERAL)).toEqual([])
    expect(idsIn(state)).toEqual([3])
  })
})

describe('a room that did not load', () => {
  it('failed with a problem, and is gone without one', () => {
    const room = roomWith(ben.id)

    expect(roomIn(after(start(), { type: 'roomFailed', room, problem: 'Busy.' }), room).phase).toBe('failed')
    expect(roomIn(after(start(), { type: 'roomFailed', room, problem: null }), room).phase).toBe('gone')
  })

  it('stays as it was once it had been loaded', () => {
    expect(
      roomIn(
        after(start(), loaded([said({ id: 1 })]), { type: 'roomFailed', room: GENERAL, problem: 'Busy.' }),
        GENERAL,
      ).phase,
    ).toBe('ready')
  })
})
