/** The live console: the newest entries, bounded, and held back while paused. Pure. */
import type { ConsoleEntry, ConsoleKind } from '@/api/records'

export const MAX_LINES = 500

/** An entry, or (`entry` null) a gap in which the page was disconnected. */
export interface Line {
  key: number
  entry: ConsoleEntry | null
}

export interface ConsoleState {
  /** Newest first. */
  lines: readonly Line[]
  isPaused: boolean
  /** Entries that arrived while paused, newest first; at most `MAX_LINES`. */
  held: readonly Line[]
  /** How many entries arrived while paused. */
  heldCount: number
  nextKey: number
}

export type ConsoleEvent =
  | { type: 'received'; entries: readonly ConsoleEntry[] }
  | { type: 'lost' }
  | { type: 'paused' }
  | { type: 'resumed' }
  | { type: 'cleared' }

export const initialConsole: ConsoleState = { lines: [], isPaused: false, held: [], heldCount: 0, nextKey: 1 }

export function consoleAfter(state: ConsoleState, event: ConsoleEvent): ConsoleState {
  switch (event.type) {
    case 'received':
      return withLines(state, event.entries)
    case 'lost': {
      const newest = state.isPaused ? (state.held[0] ?? state.lines[0]) : state.lines[0]
      return newest === undefined || newest.entry === null ? state : withLines(state, [null])
    }
    case 'paused':
      return { ...state, isPaused: true }
    case 'resumed':
      return { ...state, isPaused: false, lines: bounded(state.held, state.lines), held: [], heldCount: 0 }
    case 'cleared':
      return { ...state, lines: [], held: [], heldCount: 0 }
  }
}

function withLines(state: ConsoleState, entries: readonly (ConsoleEntry | null)[]): ConsoleState {
  const fresh = entries.map((entry, index) => ({ key: state.nextKey + index, entry })).reverse()
  const nextKey = state.nextKey + entries.length
  return state.isPaused
    ? { ...state, nextKey, held: bounded(fresh, state.held), heldCount: state.heldCount + entries.length }
    : { ...state, nextKey, lines: bounded(fresh, state.lines) }
}

const bounded = (newer: readonly Line[], older: readonly Line[]): Line[] => [...newer, ...older].slice(0, MAX_LINES)

/** Lines of these kinds (empty: all kinds) that contain the text, ignoring case. Gaps stay. */
export function shownLines(lines: readonly Line[], kinds: ReadonlySet<ConsoleKind>, text: string): Line[] {
  const wanted = text.trim().toLowerCase()
  return lines.filter(({ entry }) => {
    if (entry === null) return true
    return (
      (kinds.size === 0 || kinds.has(entry.kind)) && (wanted === '' || entryText(entry).toLowerCase().includes(wanted))
    )
  })
}

export const KINDS: Record<ConsoleKind, string> = {
  event: 'Event',
  client_event: 'Client event',
  join: 'Join',
  leave: 'Leave',
  occupied: 'Occupied',
  vacated: 'Vacated',
  error: 'Error',
  audit: 'Admin',
}

/** Sent only if the webhooks are configured for them: no filter is offered before the first. */
const IF_RECEIVED: ReadonlySet<ConsoleKind> = new Set(['occupied', 'vacated', 'client_event'])

/** The kinds offered as filters. */
export function offeredKinds(lines: readonly Line[], chosen: ReadonlySet<ConsoleKind>): ConsoleKind[] {
  const received = new Set(lines.map(({ entry }) => entry?.kind))
  return (Object.keys(KINDS) as ConsoleKind[]).filter(
    (kind) => !IF_RECEIVED.has(kind) || received.has(kind) || chosen.has(kind),
  )
}

export const detailText = ({ detail }: ConsoleEntry): string =>
  Object.entries(detail)
    .map(
      ([name, value]) => `${name.replaceAll('_', ' ')}: ${typeof value === 'string' ? value : JSON.stringify(value)}`,
    )
    .join(', ')

/** An entry as one line of text. */
export const entryText = (entry: ConsoleEntry): string =>
  [entry.at, KINDS[entry.kind] ?? entry.kind, entry.channel, entry.name, detailText(entry)].filter(Boolean).join('  ')

/** All lines as text, oldest first. */
export const asText = (lines: readonly Line[]): string =>
  lines
    .map(({ entry }) => (entry === null ? '(disconnected: events from this period are missing)' : entryText(entry)))
    .reverse()
    .join('\n')
