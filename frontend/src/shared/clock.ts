/** Times as text, in the user's language and time zone. */
import { onScopeDispose, ref, type Ref } from 'vue'

/** The current time in milliseconds, updated every `everyMs`, for as long as the component lives. */
export function useNow(everyMs: number): Ref<number> {
  const now = ref(Date.now())
  const timer = setInterval(() => (now.value = Date.now()), everyMs)
  onScopeDispose(() => clearInterval(timer))
  return now
}

const time = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' })
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' })
const weekday = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' })
const fullDay = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'long', year: 'numeric' })
const shortDay = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' })

export const clockTime = (iso: string): string => time.format(new Date(iso))
export const exactTime = (iso: string): string => exact.format(new Date(iso))

/** The local day as a key, equal for all times of a day. */
export function dayKey(iso: string): string {
  const date = new Date(iso)
  return `${date.getFullYear()}-${date.getMonth() + 1}-${date.getDate()}`
}

function daysAgo(iso: string, now: number): number {
  const midnight = (at: Date) => Date.UTC(at.getFullYear(), at.getMonth(), at.getDate())
  return Math.round((midnight(new Date(now)) - midnight(new Date(iso))) / 86_400_000)
}

export function dayLabel(iso: string, now: number): string {
  const ago = daysAgo(iso, now)
  if (ago === 0) return 'Today'
  if (ago === 1) return 'Yesterday'
  return (ago > 0 && ago < 180 ? weekday : fullDay).format(new Date(iso))
}

/** The time if it is today, otherwise the day. */
export const shortTime = (iso: string, now: number): string =>
  daysAgo(iso, now) === 0 ? clockTime(iso) : shortDay.format(new Date(iso))
