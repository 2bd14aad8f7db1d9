/**
 * Saves what is typed into a form, per account and tab, until it is sent or discarded. It survives the end of a
 * session, a reload, and the sign-in of another account, which does not see it. Secrets are never saved.
 */
import { useSession } from './session'

export interface SavedForm<T> {
  /** What was saved before; null if nothing was. */
  read(): T | null
  save(value: T): void
  clear(): void
}

export function useSavedForm<T extends object>(form: string): SavedForm<T> {
  // Bound to the present account, even if another one is signed in when the form is saved.
  const storageKey = `smartlink.form.${useSession().account?.id ?? 0}.${form}`
  return {
    read: () => {
      try {
        const saved: unknown = JSON.parse(sessionStorage.getItem(storageKey) ?? 'null')
        return typeof saved === 'object' ? (saved as T | null) : null
      } catch {
        return null
      }
    },
    save: (value) => {
      try {
        sessionStorage.setItem(storageKey, JSON.stringify(value))
      } catch {
        // Without storage, forms do not survive the end of a session.
      }
    },
    clear: () => {
      try {
        sessionStorage.removeItem(storageKey)
      } catch {
        // Without storage there is nothing to remove.
      }
    },
  }
}
