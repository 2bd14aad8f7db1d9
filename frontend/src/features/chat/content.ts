/**
 * What a message says, which its author may change. Pure.
 *
 * Copies of a message come by events, answers and lists, in any order: the highest version is right.
 */
import type { Message } from '@/api/records'

/** As many changes are remembered, for lists that were asked for before them and arrive after them. */
const REMEMBERED = 200

/** A message with the later content of two copies. */
export function withContent<T extends Message>(message: T, other: Message | undefined): T {
  if (!other || other.version <= message.version) return message
  const { message: text, version, edited_at, deleted_at } = other
  return { ...message, message: text, version, edited_at, deleted_at }
}

/** A message of an event, which may have been recorded before messages could change. */
export function complete<T extends Message>(message: T): T {
  return Object.assign({ version: 1, edited_at: null, deleted_at: null }, message)
}

export function remembered(changes: readonly Message[], changed: Message): Message[] {
  return [...changes.filter(({ id }) => id !== changed.id), changed].slice(-REMEMBERED)
}

/** Messages of a list with the changes that it may be older than. */
export function upToDate<T extends Message>(list: readonly T[], changes: readonly Message[]): readonly T[] {
  if (changes.length === 0) return list
  const byId = new Map(changes.map((one) => [one.id, one]))
  return list.map((message) => withContent(message, byId.get(message.id)))
}

/** What stands for a message in lists and menus: its text, or that it was deleted. */
export function summary(message: Pick<Message, 'message' | 'deleted_at'>): string {
  return message.deleted_at === null ? message.message : 'Message deleted'
}
