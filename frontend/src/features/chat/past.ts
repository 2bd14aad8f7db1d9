/**
 * A piece of a room's past that the user jumped to, apart from the present: messages that arrive in the meantime go to
 * the present, and neither has gaps inside. Pure.
 */
import type { Message } from '@/api/records'
import type { RoomKey } from './rooms'
import { EMPTY_ROOM, union, type Room } from './state'

export interface Past extends Room {
  key: RoomKey
  newer: Room['older']
}

export function pastOf(key: RoomKey, messages: readonly Message[], hasOlder: boolean): Past {
  return { ...EMPTY_ROOM, key, phase: 'ready', messages, hasOlder, newer: 'idle' }
}

export const withMore = (past: Past, more: readonly Message[]): Past => ({
  ...past,
  messages: union(past.messages, more),
})

/** Whether nothing lies between a piece of the past and the present. */
export function touches(past: readonly Message[], present: Room): boolean {
  const first = present.messages[0]
  const last = past.at(-1)
  if (present.phase !== 'ready') return false
  return first === undefined || (last !== undefined && last.id >= first.id)
}
