/** Who is online according to the presence channel; a leave is shown 3 s later, in case it was a reload. */
import type { Profile } from '@/api/records'
import { named } from '@/features/users/names'

export const LEAVE_HIDDEN_MS = 3_000

export interface Member extends Profile {
  /** When the leave is shown, in milliseconds; null while online. */
  goneAt: number | null
}

export type MembersEvent =
  | { type: 'here'; members: readonly Profile[] }
  | { type: 'joined'; member: Profile }
  | { type: 'renamed'; person: Profile }
  | { type: 'left'; id: number; now: number }
  | { type: 'swept'; now: number }

export function membersAfter(members: readonly Member[], event: MembersEvent): readonly Member[] {
  switch (event.type) {
    case 'here':
      return byName(event.members.map(({ id, name }) => ({ id: Number(id), name, goneAt: null })))
    case 'joined': {
      const others = members.filter(({ id }) => id !== Number(event.member.id))
      return byName([...others, { id: Number(event.member.id), name: event.member.name, goneAt: null }])
    }
    case 'renamed':
      return byName(members.map((one) => named(one, event.person)))
    case 'left':
      return members.map((one) => (one.id === event.id ? { ...one, goneAt: event.now + LEAVE_HIDDEN_MS } : one))
    case 'swept':
      return members.some(({ goneAt }) => goneAt !== null && goneAt <= event.now)
        ? members.filter(({ goneAt }) => goneAt === null || goneAt > event.now)
        : members
  }
}

function byName(members: Member[]): Member[] {
  return members.sort((one, other) => one.name.localeCompare(other.name) || one.id - other.id)
}
