/** How far the general chat was read. The server keeps this for direct messages only. */
import type { KeyValueStorage } from './drafts'

const storageKey = (me: number) => `smartlink.seen.${me}`

export function loadSeen(storage: KeyValueStorage, me: number): number {
  try {
    const id = Number(storage.getItem(storageKey(me)))
    return Number.isSafeInteger(id) && id > 0 ? id : 0
  } catch {
    return 0
  }
}

export function keepSeen(storage: KeyValueStorage, me: number, upTo: number): void {
  try {
    if (upTo > loadSeen(storage, me)) storage.setItem(storageKey(me), String(upTo))
  } catch {
    // Without storage, the general chat counts as read after a reload.
  }
}
