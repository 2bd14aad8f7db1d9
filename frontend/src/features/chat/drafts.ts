/** Drafts of unsent messages, per account and room; they survive a reload. */
import type { RoomKey } from './rooms'

export type Drafts = Readonly<Partial<Record<RoomKey, string>>>

/** The part of Storage that is used. */
export type KeyValueStorage = Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>

export function draftsAfter(drafts: Drafts, room: RoomKey, text: string): Drafts {
  const others = Object.entries(drafts).filter(([key]) => key !== room)
  return Object.fromEntries(text.trim() === '' ? others : [...others, [room, text]])
}

const storageKey = (me: number) => `smartlink.drafts.${me}`

export function loadDrafts(storage: KeyValueStorage, me: number): Drafts {
  try {
    const read: unknown = JSON.parse(storage.getItem(storageKey(me)) ?? '{}')
    if (typeof read !== 'object' || read === null) return {}
    return Object.fromEntries(Object.entries(read).filter(([, text]) => typeof text === 'string'))
  } catch {
    return {}
  }
}

/** Keeps one room's draft; the others are read again first, because another tab may have changed them. */
export function keepDraft(storage: KeyValueStorage, me: number, room: RoomKey, text: string): void {
  const drafts = draftsAfter(loadDrafts(storage, me), room, text)
  try {
    if (Object.keys(drafts).length === 0) storage.removeItem(storageKey(me))
    else storage.setItem(storageKey(me), JSON.stringify(drafts))
  } catch {
    // Without storage, drafts do not survive a reload.
  }
}
