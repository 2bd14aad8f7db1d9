/** What the reader has seen: the line above new messages, and read marks, reported to the server and other tabs. */
import { ref } from 'vue'
import * as http from '@/api/chat'
import { Unreachable } from '@/api/errors'
import type { Message } from '@/api/records'
import type { ChatCore } from './core'
import { GENERAL, personIn, roomWith, type RoomKey } from './rooms'
import { keepSeen } from './seen'
import { roomIn } from './state'

export function useReading({ state, room, me, apply, post }: ChatCore) {
  /** The message in the open room that the line above new messages stands before. */
  const firstNew = ref<number | null>(null)
  /** Whether the reader is looking at the end of the open room right now. */
  const isReadingEnd = ref(false)
  /** Direct messages reported to the server as read. */
  const reportedRead = new Set<number>()

  function reset(): void {
    reportedRead.clear()
    firstNew.value = null
  }

  function firstUnread(key: RoomKey): number | null {
    const { messages, seen } = roomIn(state.value, key)
    const isDirect = personIn(key) !== null
    const found = messages.find(
      ({ id, user_id, is_read }) => user_id !== me.value && id > seen && !(isDirect && is_read),
    )
    return found?.id ?? null
  }

  /** Another room is open. */
  function opened(key: RoomKey | null): void {
    isReadingEnd.value = false
    firstNew.value = key === null ? null : firstUnread(key)
  }

  /** The first message that the reader misses gets a line above it. Call it before the message is in the state. */
  function arriving(key: RoomKey, message: Message): void {
    const isMissed = key === room.value && !isReadingEnd.value && message.user_id !== me.value
    if (isMissed && firstUnread(key) === null) firstNew.value = message.id
  }

  /** A room was loaded for the first time. On a first visit, everything in General counts as read. */
  function loaded(key: RoomKey): void {
    const { seen, messages } = roomIn(state.value, key)
    const last = messages.at(-1)
    if (key === GENERAL && seen === 0 && last) {
      apply({ type: 'roomSeen', room: GENERAL, upTo: last.id })
      keepSeen(localStorage, me.value, last.id)
    }
    if (key === room.value) firstNew.value = firstUnread(key)
  }

  function setReadingEnd(isReading: boolean): void {
    isReadingEnd.value = isReading
    markSeen()
  }

  /** Marks the open room as read while the reader is looking at its end. */
  function markSeen(): void {
    const key = room.value
    if (key === null || !isReadingEnd.value) return
    const { messages, seen, phase } = roomIn(state.value, key)
    if (phase !== 'ready') return
    const last = messages.at(-1)?.id ?? 0
    if (last > seen) {
      apply({ type: 'trimmed', room: key })
      noteSeen(key, last)
    }
    const person = personIn(key)
    if (person !== null) reportRead(person, messages)
  }

  /** Messages before the last seen one count too: a reply may arrive before an earlier message of its sender. */
  function reportRead(person: number, messages: readonly Message[]): void {
    const unread = messages.filter(
      ({ id, user_id, is_read }) => user_id === person && !is_read && !reportedRead.has(id),
    )
    if (unread.length === 0) return
    for (const { id } of unread) reportedRead.add(id)
    http.readAll(person).catch((error: unknown) => {
      // Sent again if the server was unreachable; if it refused, they stay unread until the next message.
      if (error instanceof Unreachable) for (const { id } of unread) reportedRead.delete(id)
    })
  }

  /** Marks all rooms as read. Raises what the server answers; rooms before the one that failed stay read. */
  async function markAllRead(): Promise<void> {
    const last = roomIn(state.value, GENERAL).messages.at(-1)
    if (last) noteSeen(GENERAL, last.id)
    for (const { user, last_message, unread_count } of state.value.conversations) {
      if (unread_count === 0 || last_message === null) continue
      await http.readAll(user.id)
      noteSeen(roomWith(user.id), last_message.id)
    }
    firstNew.value = null
  }

  function noteSeen(key: RoomKey, upTo: number): void {
    apply({ type: 'roomSeen', room: key, upTo })
    post({ type: 'seen', me: me.value, room: key, upTo })
    if (key === GENERAL) keepSeen(localStorage, me.value, upTo)
  }

  return { firstNew, reset, opened, arriving, loaded, setReadingEnd, markSeen, markAllRead }
}
