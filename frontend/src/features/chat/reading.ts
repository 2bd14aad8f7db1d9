/** How far the reader has read: the line above new messages, and what is reported to the server and the other tabs. */
import { ref } from 'vue'
import * as http from '@/api/chat'
import { Unreachable } from '@/api/errors'
import type { Message } from '@/api/records'
import type { ChatCore } from './core'
import { personIn, type RoomKey } from './rooms'
import { roomIn, unreadIn } from './state'
import { NOTHING_UNREAD } from './unread'

/** Several steps through unread messages are reported together. */
const STEP_MS = 700
/** What arrives in General while one looks at it is unread nowhere for long enough to matter: reported rarely. */
const LIVE_MS = 20_000

export function useReading({ state, room, me, apply, dispatch, post }: ChatCore) {
  /** The message in the open room that the line above new messages stands before. */
  const firstNew = ref<number | null>(null)
  /** Up to where the reader sees the open room right now; null while they do not look. */
  let sees: number | null = null
  /** The open room stays unread, because the reader marked it so. */
  let isHeld = false
  /** The first message that arrived while the reader was looking, if nothing was unread before it. */
  let liveFrom = 0
  const reported = new Map<RoomKey, number>()
  let waiting: { key: RoomKey; upTo: number; at: number; timer: ReturnType<typeof setTimeout> } | null = null

  function reset(): void {
    report()
    reported.clear()
    firstNew.value = sees = null
    isHeld = false
  }

  /** Another room is open, and what is unread in it is known: reading begins there. */
  function begin(key: RoomKey): number | null {
    firstNew.value = (state.value.unread[key] ?? NOTHING_UNREAD).first
    return firstNew.value
  }

  function leave(): void {
    report()
    firstNew.value = sees = null
    isHeld = false
  }

  /** The first message that the reader misses gets a line above it. Call it before the message is in the state. */
  function arriving(key: RoomKey, message: Message): void {
    if (key === room.value && message.user_id !== me.value && unreadIn(state.value, key) === 0) {
      if (sees === null) firstNew.value = message.id
      else liveFrom = message.id
    }
    // A reply may arrive before an earlier message of its sender.
    if (message.id <= (reported.get(key) ?? 0)) reported.delete(key)
  }

  /** Reading could not begin where it should: the room stays as unread as it is. */
  function hold(): void {
    isHeld = true
  }

  /** Where the reader looks. */
  function setSeen(upTo: number | null): void {
    sees = upTo
    markSeen()
  }

  /** Marks the open room as read up to where the reader sees it. */
  function markSeen(): void {
    const key = room.value
    if (key === null || sees === null || isHeld) return
    const known = state.value.unread[key] ?? NOTHING_UNREAD
    const isNews = known.first !== null && sees >= known.first
    const isLate = personIn(key) !== null && isUnreadBefore(key, sees)
    const isTold = sees <= (reported.get(key) ?? 0) || (waiting?.key === key && sees <= waiting.upTo)
    if ((!isNews && !isLate) || isTold) return
    const upTo = sees
    apply({ type: 'roomRead', room: key, upTo })
    post({ type: 'read', me: me.value, room: key, upTo })
    const isDirect = personIn(key) !== null
    if (isDirect) plan(key, upTo, waiting ? STEP_MS : 0)
    else plan(key, upTo, known.first === liveFrom ? LIVE_MS : STEP_MS)
  }

  function isUnreadBefore(key: RoomKey, upTo: number): boolean {
    const person = personIn(key)
    const from = roomIn(state.value, key).messages.findLast(({ user_id, id }) => user_id === person && id <= upTo)
    return from !== undefined && !from.is_read && from.id > (reported.get(key) ?? 0)
  }

  function plan(key: RoomKey, upTo: number, delayMs: number): void {
    if (waiting && waiting.key !== key) report()
    const at = Math.min(Date.now() + delayMs, waiting?.at ?? Infinity)
    clearTimeout(waiting?.timer)
    waiting = { key, upTo, at, timer: setTimeout(report, at - Date.now()) }
    if (delayMs === 0) report()
  }

  /** Tells the server what waits to be told. */
  function report(isLeaving = false): void {
    if (!waiting) return
    const { key, upTo, timer } = waiting
    clearTimeout(timer)
    waiting = null
    reported.set(key, upTo)
    http.readUpTo(personIn(key), upTo, isLeaving).then(
      (answer) => me.value !== 0 && dispatch({ type: 'unreadChanged', room: answer }),
      (error: unknown) => {
        // Told again if the server was unreachable; if it refused, with the next message.
        if (error instanceof Unreachable && reported.get(key) === upTo) reported.delete(key)
      },
    )
  }

  /** Marks a message and what follows it as unread, for as long as the room stays open. */
  async function markUnread(messageId: number): Promise<void> {
    report()
    isHeld = true
    try {
      const answer = await http.markUnread(messageId)
      if (room.value !== null) reported.delete(room.value)
      dispatch({ type: 'unreadChanged', room: answer })
      firstNew.value = messageId
    } catch (error) {
      isHeld = false
      throw error
    }
  }

  /** Marks all rooms as read. Raises what the server answers; rooms before the one that failed stay read. */
  async function markAllRead(): Promise<void> {
    for (const key of Object.keys(state.value.unread) as RoomKey[]) {
      const { count, upTo } = state.value.unread[key] ?? NOTHING_UNREAD
      if (count > 0) dispatch({ type: 'unreadChanged', room: await http.readUpTo(personIn(key), upTo) })
    }
    firstNew.value = null
  }

  return { firstNew, reset, begin, hold, leave, arriving, setSeen, markSeen, report, markUnread, markAllRead }
}
