/** Passes renames on to every list that shows names. */
import { onScopeDispose } from 'vue'
import type { Profile } from '@/api/records'

type Ear = (person: Profile) => void

const ears = new Set<Ear>()

/** Calls `hear` with every renamed person, for as long as the component lives. */
export function whenRenamed(hear: Ear): void {
  ears.add(hear)
  onScopeDispose(() => ears.delete(hear))
}

export function tellRenamed(person: Profile): void {
  ears.forEach((hear) => hear(person))
}

/** The profile, with the person's present name if it is theirs. */
export const named = <T extends Profile>(one: T, person: Profile): T =>
  one.id === person.id ? { ...one, name: person.name } : one
