/** The metrics of the admin pages: the current ones and an hour of samples. Pure. */
import type { Figures, FigureSample } from '@/api/records'

export const KEPT_MS = 3_600_000
export const STALE_AFTER_MS = 5_000

/** The metrics shown in charts. */
export const CHARTED = [
  'connections',
  'published_per_s',
  'delivered_per_s',
  'publish_latency_ms',
  'queue_waiting',
] as const
export type Charted = (typeof CHARTED)[number]

export interface Point extends Record<Charted, number | null> {
  at: number
}

export interface FigureState {
  phase: 'loading' | 'ready' | 'failed'
  now: Figures | null
  /** When the page was opened, and when metrics last arrived live, by the browser's clock. Milliseconds. */
  openedAt: number
  receivedAt: number | null
  /** Oldest first. */
  points: readonly Point[]
}

export type FigureEvent =
  | { type: 'loaded'; now: Figures; history: readonly FigureSample[] }
  | { type: 'received'; figures: Figures; at: number }
  | { type: 'failed' }

export function initialFigures(openedAt: number): FigureState {
  return { phase: 'loading', now: null, openedAt, receivedAt: null, points: [] }
}

export function figuresAfter(state: FigureState, event: FigureEvent): FigureState {
  switch (event.type) {
    case 'failed':
      return { ...state, phase: state.phase === 'ready' ? 'ready' : 'failed' }
    case 'received':
      return taken({ ...state, phase: 'ready', receivedAt: event.at }, event.figures)
    case 'loaded': {
      const samples = event.history.map(({ at, figures }) => point(at, figures))
      // Live points are denser than samples, but start when the page was opened.
      const from = state.points[0]?.at ?? Infinity
      const points = [...samples.filter(({ at }) => at < from), ...state.points]
      return taken({ ...state, phase: 'ready', points }, event.now)
    }
  }
}

function taken(state: FigureState, latest: Figures): FigureState {
  if (state.now !== null && state.now.at > latest.at) return state
  const last = point(latest.at, latest)
  const points = state.points.filter(({ at }) => at < last.at && at >= last.at - KEPT_MS / 1000)
  return { ...state, now: latest, points: [...points, last] }
}

function point(at: string, figures: FigureSample['figures']): Point {
  const found = Object.fromEntries(CHARTED.map((name) => [name, figures[name] ?? null])) as Record<
    Charted,
    number | null
  >
  return { at: Date.parse(at) / 1000, ...found }
}

/** Whether metrics arrive live; `opening` until the first arrives or is overdue. */
export function liveStatusOf(
  { receivedAt, openedAt }: FigureState,
  isConnected: boolean,
  now: number,
): 'live' | 'opening' | 'stale' {
  if (now - (receivedAt ?? openedAt) > STALE_AFTER_MS) return 'stale'
  if (receivedAt === null) return 'opening'
  return isConnected ? 'live' : 'stale'
}
