/** The lines of a live console: the latest, with pauses, and gaps where entries were dropped. Pure. */
import type { Batch, Entry } from './api'

export const MOST = 500

export interface Line {
  key: number
  node: string
  /** null: some were dropped here. */
  entry: Entry | null
  dropped: number
}

export interface Lines {
  shown: readonly Line[]
  held: readonly Line[]
  isPaused: boolean
  last: number
}

export const empty: Lines = { shown: [], held: [], isPaused: false, last: 0 }

/** Adds a batch, newest first; while paused, it is held. */
export function taken(lines: Lines, batch: Batch): Lines {
  let key = lines.last
  const come: Line[] = batch.entries.map((entry) => ({ key: ++key, node: batch.node, entry, dropped: 0 }))
  if (batch.dropped > 0) come.push({ key: ++key, node: batch.node, entry: null, dropped: batch.dropped })
  come.reverse()
  const after = { ...lines, last: key }
  if (lines.isPaused) return { ...after, held: [...come, ...lines.held].slice(0, MOST) }
  return { ...after, shown: [...come, ...lines.shown].slice(0, MOST) }
}

export const paused = (lines: Lines): Lines => ({ ...lines, isPaused: true })

export const resumed = (lines: Lines): Lines => ({
  ...lines,
  isPaused: false,
  shown: [...lines.held, ...lines.shown].slice(0, MOST),
  held: [],
})

export const cleared = (lines: Lines): Lines => ({ ...lines, shown: [], held: [] })

/** The lines as text to paste, oldest first: JSON, one a line. */
export const asText = (lines: readonly Line[]): string =>
  [...lines]
    .reverse()
    .map(({ entry, node, dropped }) => JSON.stringify(entry === null ? { dropped } : { ...entry, node }))
    .join('\n')
