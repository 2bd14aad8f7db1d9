/**
 * What is being written in a form, kept per account until it went through or was given up. So a session that ends, a
 * reload and another account's sign-in cost nothing of it: who signs in again finds it where it was, nobody else sees
 * it. It belongs to its tab. Secrets are never kept.
 */
import { useSession } from './session'

export interface Kept<T> {
  /** What was written before; null for nothing. */
  written(): T | null
  keep(written: T): void
  forget(): void
}

export function useKept<T extends object>(form: string): Kept<T> {
  // The account of now: what is written stays its own, whoever is signed in when it is put away.
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
        // A full or forbidden storage costs what is written when the session ends, nothing else.
      }
    },
    forget: () => {
      try {
        sessionStorage.removeItem(place)
      } catch {
        // Then nothing was kept either.
      }
    },
  }
}
