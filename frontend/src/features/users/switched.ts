/** A note to the page that loads next in this tab: whose it was until another account signed in. */
import type { Profile } from '@/api/records'

const PLACE = 'smartlink.switched'

export function leaveNote({ id, name }: Profile): void {
  try {
    sessionStorage.setItem(PLACE, JSON.stringify({ id, name }))
  } catch {
    // Without storage the page changes its account without a word of it.
  }
}

/** Whose page this was, told once; null when nothing changed. */
export function takeNote(): Profile | null {
  try {
    const note = JSON.parse(sessionStorage.getItem(PLACE) ?? 'null') as Profile | null
    sessionStorage.removeItem(PLACE)
    return typeof note?.name === 'string' ? note : null
  } catch {
    return null
  }
}
