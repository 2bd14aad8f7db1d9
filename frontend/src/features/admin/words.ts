/** What admins did and what events came to, in words. */
import type { AuditEntry } from '@/api/records'

const moment = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', second: '2-digit' })

export const momentOf = (iso: string): string => moment.format(new Date(iso))

const STATES: Record<string, { word: string; look: string }> = {
  pending: { word: 'Waiting', look: 'warn' },
  sent: { word: 'Sent', look: 'active' },
  failed: { word: 'Failed', look: 'bad' },
}

export const stateOf = (state: string): { word: string; look: string } => STATES[state] ?? { word: state, look: '' }

const CHANGES: Record<string, [whenTrue: string, whenFalse: string]> = {
  is_admin: ['made an admin of', 'took the admin rights of'],
  is_blocked: ['blocked', 'let in again'],
}

export function deedText({ action, target, detail }: AuditEntry): string {
  const count = typeof detail['count'] === 'number' ? detail['count'] : 0
  switch (action) {
    case 'change user': {
      const deeds = Object.entries(detail).map(([field, value]) => CHANGES[field]?.[value === true ? 0 : 1] ?? `set ${field} of`)
      return `${deeds.join(' and ') || 'changed'} ${target}`
    }
    case 'disconnect':
      return `disconnected ${target}`
    case 'broadcast':
      return `announced ${String(detail['event'])} on ${target}`
    case 'retry':
      return `sent failed event ${target} again`
    case 'forget':
      return `forgot failed event ${target}`
    case 'retry all':
      return `sent ${count} failed ${count === 1 ? 'event' : 'events'} again`
    case 'forget all':
      return `forgot ${count} failed ${count === 1 ? 'event' : 'events'}`
    default:
      return `${action}: ${target}`
  }
}
