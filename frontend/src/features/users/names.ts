/** Passes renames on to every list that shows names. */
import { onScopeDispose } from 'vue'
import type { Profile } from '@/api/records'

type Listener = (person: Profile) => void

const listeners = new Set<Listener>()

/** Calls `listener` with every renamed person, for as long as the component lives. */
export function onRenamed(listener: Listener): void {
  listeners.add(listener)
  onScopeDispose(() => listeners.delete(listener))
}

export function announceRename(person: Profile): void {
  listeners.forEach((listener) => listener(person))
}

/** The profile, with the person's present name if it is theirs. */
export const named = <T extends Profile>(one: T, person: Profile): T =>
  one.id === person.id ? { ...one, name: person.name } : one
