/** A note for the next page of this tab: which account it showed until another one signed in. */
import type { Profile } from '@/api/records'

const STORAGE_KEY = 'smartlink.switched'

export function leaveNote({ id, name }: Profile): void {
  try {
    sessionStorage.setItem(STORAGE_KEY, JSON.stringify({ id, name }))
  } catch {
    // Without storage, the page changes its account silently.
  }
}

/** The former account, once; null if nothing changed. */
export function takeNote(): Profile | null {
  try {
    const note = JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? 'null') as Profile | null
    sessionStorage.removeItem(STORAGE_KEY)
    return typeof note?.name === 'string' ? note : null
  } catch {
    return null
  }
}
