/** Figures and times as text. */
import { figure } from '@/shared/figures'

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' })
const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' })

export const momentOf = (seconds: number): string => moment.format(seconds * 1000)
export const clockOf = (seconds: number): string => clock.format(seconds * 1000)
export const isoOf = (seconds: number): string => new Date(seconds * 1000).toISOString()

/** A duration as two units at most, such as `2 h 5 min`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds))
  const parts: [number, string][] = [
    [Math.floor(whole / 86_400), 'd'],
    [Math.floor(whole / 3_600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'min'],
    [whole % 60, 's'],
  ]
  const first = parts.findIndex(([count]) => count > 0)
  if (first === -1) return '0 s'
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(' ')
}

export function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB']
  const power = count < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(count) / 10))
  return `${figure(count / 1024 ** power)} ${units[power]}`
}

export const KIND_WORDS: Record<string, string> = {
  connect: 'Connect',
  disconnect: 'Disconnect',
  subscribe: 'Subscribe',
  unsubscribe: 'Unsubscribe',
  publish: 'Event',
  client_event: 'Client event',
  webhook: 'Webhook',
  refused: 'Refused',
  error: 'Error',
  received: 'Received',
  sent: 'Sent',
}

export const REDIS_WORDS: Record<string, string> = { off: 'Not used', up: 'Up', down: 'Down', full: 'Full' }

/** `max_event_bytes` as `Max event bytes`. */
export function label(name: string): string {
  const words = name.replaceAll('_', ' ')
  return words.charAt(0).toUpperCase() + words.slice(1)
}

export function valueText(value: unknown): string {
  if (value === null) return 'No limit'
  if (typeof value === 'boolean') return value ? 'Yes' : 'No'
  if (typeof value === 'number') return value.toLocaleString()
  if (Array.isArray(value)) return `${value[0]} per ${value[1]} s`
  return String(value)
}
