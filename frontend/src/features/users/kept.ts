/**
 * Keeps what is typed into a form, per account and tab, until it is sent or discarded. It survives the end of a
 * session, a reload, and the sign-in of another account, which does not see it. Secrets are never kept.
 */
import { useSession } from './session'

export interface Kept<T> {
  /** What was kept before; null if nothing was. */
  written(): T | null
  keep(written: T): void
  forget(): void
}

export function useKept<T extends object>(form: string): Kept<T> {
  // Bound to the present account, even if another one is signed in when the form is kept.
  const place = `smartlink.form.${useSession().account?.id ?? 0}.${form}`
  return {
    written: () => {
      try {
        const read: unknown = JSON.parse(sessionStorage.getItem(place) ?? 'null')
        return typeof read === 'object' ? (read as T | null) : null
      } catch {
        return null
      }
    },
    keep: (written) => {
      try {
        sessionStorage.setItem(place, JSON.stringify(written))
      } catch {
        // Without storage, forms do not survive the end of a session.
      }
    },
    forget: () => {
      try {
        sessionStorage.removeItem(place)
      } catch {
        // Without storage there is nothing to remove.
      }
    },
  }
}
