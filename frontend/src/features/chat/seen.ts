/** How far the general chat was read. The server keeps this for direct messages only. */
import type { Shelf } from './drafts'

const place = (me: number) => `smartlink.seen.${me}`

export function loadSeen(shelf: Shelf, me: number): number {
  try {
    const id = Number(shelf.getItem(place(me)))
    return Number.isSafeInteger(id) && id > 0 ? id : 0
  } catch {
    return 0
  }
}

export function keepSeen(shelf: Shelf, me: number, upTo: number): void {
  try {
    if (upTo > loadSeen(shelf, me)) shelf.setItem(place(me), String(upTo))
  } catch {
    // Without storage, the general chat counts as read after a reload.
  }
}
