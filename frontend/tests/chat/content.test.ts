/** Edits and deletions have one order, whatever order their events, answers and lists arrive in. */
import { describe, expect, it } from 'vitest'
import type { Message } from '@/api/records'
import { complete, summary, upToDate } from '@/features/chat/content'
import { GENERAL, roomWith } from '@/features/chat/rooms'
import { chatAfter, initialChat, roomIn, type ChatEvent, type ChatState } from '@/features/chat/state'
import { ana, ben, said } from '../records'

const at = '2026-05-01T11:00:00Z'
const edited = (message: Message, version: number): Message => ({
  ...message,
  message: `version ${version}`,
  version,
  edited_at: at,
})
const deleted = (message: Message, version: number): Message => ({ ...message, message: '', version, deleted_at: at })
const changed = (message: Message): ChatEvent => ({ type: 'messageChanged', message })
const after = (...events: ChatEvent[]): ChatState => events.reduce(chatAfter, initialChat(ana.id))
const general = (messages: Message[]): ChatEvent => ({ type: 'roomLoaded', room: GENERAL, messages, hasOlder: true })
const shown = (state: ChatState, id: number) => roomIn(state, GENERAL).messages.find((one) => one.id === id)

describe('changes of a message', () => {
  const first = said({ id: 7, by: ben })
  const changes = [edited(first, 2), edited(first, 3), deleted(first, 4)].map(changed)

  it.each([
    [0, 1, 2],
    [2, 1, 0],
    [1, 0, 2],
    [0, 2, 1],
    [2, 2, 0],
  ])('end at the highest version (%i, %i, %i)', (...order) => {
    const state = after(general([first]), ...order.flatMap((index) => changes[index] ?? []))

    expect(shown(state, 7)).toMatchObject({ message: '', version: 4, deleted_at: at })
  })

  it('are not undone by a list, an event or an answer that was made before them', () => {
    const stale: ChatEvent[] = [
      general([first]),
      { type: 'olderLoaded', room: GENERAL, messages: [first], hasOlder: false },
      { type: 'pastJoined', room: GENERAL, messages: [first], hasOlder: false },
      { type: 'messageArrived', message: first },
      { type: 'sent', key: 'k', message: first },
    ]
    for (const late of stale) {
      expect(shown(after(general([said({ id: 9 })]), changed(deleted(first, 4)), late), 7)?.message).toBe('')
      expect(shown(after(general([first]), changed(deleted(first, 4)), late), 7)?.message).toBe('')
    }
  })

  it('are those that a later list brings', () => {
    const lived = after(general([first]), changed(edited(first, 2)))

    expect(shown(lived, 7)).toEqual(shown(after(general([edited(first, 2)])), 7))
  })

  it('reach the preview of a conversation, also if the list of conversations is older', () => {
    const direct = said({ id: 8, by: ben, to: ana })
    const list: ChatEvent = { type: 'conversationsLoaded', list: [{ user: ben, last_message: direct }] }
    for (const state of [after(list, changed(deleted(direct, 2))), after(changed(deleted(direct, 2)), list)]) {
      const last = state.conversations[0]?.last_message
      expect(last && summary(last)).toBe('Message deleted')
    }
  })

  it('keep receipts', () => {
    const read = said({ id: 8, by: ana, to: ben, isRead: true })
    const loaded: ChatEvent = { type: 'roomLoaded', room: roomWith(ben.id), messages: [read], hasOlder: false }
    const state = after(loaded, changed({ ...edited(read, 2), is_read: false, read_at: null, delivered_at: null }))

    expect(roomIn(state, roomWith(ben.id)).messages[0]).toMatchObject({ message: 'version 2', is_read: true })
  })

  it('of messages nobody asked for do not pile up', () => {
    const state = after(...Array.from({ length: 500 }, (_, id) => changed(deleted(said({ id }), 2))))

    expect(state.changes).toHaveLength(200)
    expect(upToDate([said({ id: 499 })], state.changes)[0]?.message).toBe('')
  })

  it('is not deleted in an event that was recorded before messages could change', () => {
    const recorded = said({ id: 7 })
    for (const later of ['version', 'edited_at', 'deleted_at']) Reflect.deleteProperty(recorded, later)
    const message = complete(recorded)

    expect(summary(message)).toBe(recorded.message)
    expect(message).toMatchObject({ version: 1, edited_at: null })
    expect(complete(edited(message, 2)).version).toBe(2)
  })
})
