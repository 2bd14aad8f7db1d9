/** The audit log and event states in words. */
import type { AuditEntry } from '@/api/records'

/** The last part of an event's wire name. */
export const className = (wireName: string): string => wireName.slice(wireName.lastIndexOf('\\') + 1)

const moment = new Intl.DateTimeFormat(undefined, {
  day: 'numeric',
  month: 'short',
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
})

export const momentOf = (iso: string): string => moment.format(new Date(iso))

const STATES: Record<string, { word: string; look: string }> = {
  pending: { word: 'Waiting', look: 'warn' },
  sent: { word: 'Sent', look: 'active' },
  failed: { word: 'Failed', look: 'bad' },
}

export const stateOf = (state: string): { word: string; look: string } => STATES[state] ?? { word: state, look: '' }

const CHANGES: Record<string, [whenTrue: string, whenFalse: string]> = {
  is_admin: ['gave admin rights to', 'removed admin rights from'],
  is_blocked: ['blocked', 'unblocked'],
}

export function auditText({ action, target, detail }: AuditEntry): string {
  const count = typeof detail['count'] === 'number' ? detail['count'] : 0
  switch (action) {
    case 'change user': {
      const deeds = Object.entries(detail).map(
        ([field, value]) => CHANGES[field]?.[value === true ? 0 : 1] ?? `set ${field} of`,
      )
      return `${deeds.join(' and ') || 'changed'} ${target}`
    }
    case 'disconnect':
      return `disconnected ${target}`
    case 'broadcast':
      return `sent ${String(detail['event'])} to ${target}`
    case 'retry':
      return `retried failed job ${target}`
    case 'forget':
      return `deleted failed job ${target}`
    case 'retry all':
      return `retried ${count} failed ${count === 1 ? 'job' : 'jobs'}`
    case 'forget all':
      return `deleted ${count} failed ${count === 1 ? 'job' : 'jobs'}`
    default:
      return `${action}: ${target}`
  }
}
