/** Jumps to a message of the open room, which may lie in a piece of the past that is not loaded. */
import { ref, shallowRef } from 'vue'
import * as http from '@/api/chat'
import { describeError } from '@/api/errors'
import type { Message, Profile } from '@/api/records'
import { upToDate, withContent } from './content'
import type { ChatCore } from './core'
import { pastOf, touches, withMore, type Past } from './past'
import { personIn, type RoomKey } from './rooms'
import { namedIn, roomIn } from './state'

export function useHistory({ state, room, dispatch }: ChatCore, loadRoom: (key: RoomKey) => Promise<void>) {
  /** A piece of the open room's past that is shown instead of the present. */
  const past = shallowRef<Past | null>(null)
  /** The message that was jumped to last. */
  const target = shallowRef<{ room: RoomKey; id: number } | null>(null)
  /** Why the last jump failed. */
  const jumpProblem = ref<string | null>(null)
  /** Whether the place where reading begins is on its way. */
  const isOpening = ref(false)
  /** Counts jumps, so that a later one wins over an answer that is still on its way. */
  let jump = 0

  function begin(): number {
    target.value = null
    jumpProblem.value = null
    jump += 1
    return jump
  }

  /** Shows a message of the open room: among the loaded messages, or in its own piece of the past. */
  async function reveal(key: RoomKey, id: number): Promise<void> {
    const current = begin()
    if (roomIn(state.value, key).phase !== 'ready') await loadRoom(key)
    if (current !== jump || room.value !== key) return
    if (!roomIn(state.value, key).messages.some((one) => one.id === id)) {
      try {
        const person = personIn(key)
        const [upTo, after] = await Promise.all([http.messages(person, id + 1), http.messagesAfter(person, id)])
        if (current !== jump || room.value !== key) return
        showPast(pastOf(key, [...upTo.messages, ...after.messages], upTo.hasOlder), after.isEnd)
      } catch (error) {
        if (current === jump) jumpProblem.value = describeError(error)
        return
      }
    } else past.value = null
    target.value = { room: key, id }
  }

  /** Shows the first unread message of the open room, after what was read before. Resolves to whether it could. */
  async function openAt(key: RoomKey, id: number): Promise<boolean> {
    const current = begin()
    isOpening.value = true
    try {
      const person = personIn(key)
      const [before, from] = await Promise.all([http.messages(person, id), http.messagesAfter(person, id - 1)])
      if (current !== jump || room.value !== key) return true
      showPast(pastOf(key, [...before.messages, ...from.messages], before.hasOlder), from.isEnd)
      return true
    } catch (error) {
      if (current === jump) jumpProblem.value = describeError(error)
      return false
    } finally {
      if (current === jump) isOpening.value = false
    }
  }

  /** The reader is further up than what arrives can be kept: what they read becomes a piece of the past. */
  function detach(key: RoomKey): void {
    const { messages, hasOlder, rowKeys } = roomIn(state.value, key)
    past.value = { ...pastOf(key, messages, hasOlder), rowKeys }
  }

  /** Once nothing lies between them, the past and the present are one. */
  function showPast(shown: Past, isEnd: boolean): void {
    const present = roomIn(state.value, shown.key)
    const isWhole = touches(shown.messages, present) || (isEnd && present.phase === 'ready')
    past.value = isWhole ? null : { ...shown, messages: upToDate(shown.messages, state.value.changes) }
    if (isWhole) dispatch({ type: 'pastJoined', room: shown.key, messages: shown.messages, hasOlder: shown.hasOlder })
  }

  async function loadPast(side: 'older' | 'newer'): Promise<void> {
    const from = past.value
    const at = from?.messages.at(side === 'older' ? 0 : -1)
    if (!from || !at || from[side] === 'loading' || (side === 'older' && !from.hasOlder)) return
    const begun: Past = { ...from, [side]: 'loading' }
    past.value = begun
    try {
      if (side === 'older') {
        const page = await http.messages(personIn(from.key), at.id)
        if (past.value === begun)
          past.value = {
            ...withMore(begun, upToDate(page.messages, state.value.changes)),
            hasOlder: page.hasOlder,
            older: 'idle',
          }
      } else {
        const page = await http.messagesAfter(personIn(from.key), at.id)
        if (past.value === begun) showPast({ ...withMore(begun, page.messages), newer: 'idle' }, page.isEnd)
      }
    } catch {
      if (past.value === begun) past.value = { ...begun, [side]: 'failed' }
    }
  }

  /** Back to the present. */
  function leavePast(): void {
    begin()
    isOpening.value = false
    past.value = null
  }

  function renamed(person: Profile): void {
    const shown = past.value
    if (shown) past.value = { ...shown, messages: shown.messages.map((message) => namedIn(message, person)) }
  }

  function changed(message: Message): void {
    const shown = past.value
    const change = (one: Message): Message => (one.id === message.id ? withContent(one, message) : one)
    if (shown) past.value = { ...shown, messages: shown.messages.map(change) }
  }

  return { past, target, jumpProblem, isOpening, openAt, detach, reveal, loadPast, leavePast, renamed, changed }
}
