/** Figures loaded plus those that came live are an hour of points, whichever came first. */
import { describe, expect, it } from 'vitest'
import type { Figures, FigureSample } from '@/api/records'
import {
  figuresAfter,
  initialFigures,
  KEPT_MS,
  liveStatusOf,
  STALE_AFTER_MS,
  type FigureEvent,
} from '@/features/admin/figures'
import { columns, figure, rangeOf } from '@/shared/figures'

const start = Date.UTC(2026, 0, 1, 12)
const iso = (second: number) => new Date(start + second * 1000).toISOString()
const figures = (second: number, connections: number | null = second): Figures => ({
  at: iso(second),
  realtime: 'up',
  connections,
  channels: 1,
  nodes: 1,
  workers: 1,
  redis: null,
  received_per_s: 0,
  published_per_s: 1,
  delivered_per_s: 2,
  publish_latency_ms: null,
  queue_waiting: 0,
  queue_lag_s: 0,
  queue_workers: 1,
  failed_jobs: 0,
  users_online: 1,
  errors: 0,
})
const sample = (second: number): FigureSample => ({ at: iso(second), figures: { connections: second } })
const loaded = (second: number, ...history: FigureSample[]): FigureEvent => ({
  type: 'loaded',
  now: figures(second),
  history,
})
const received = (second: number): FigureEvent => ({ type: 'received', figures: figures(second), at: second * 1000 })
const after = (...events: FigureEvent[]) => events.reduce(figuresAfter, initialFigures(0))
const times = (...events: FigureEvent[]) => after(...events).points.map(({ at }) => at - start / 1000)

describe('the figures', () => {
  it('are the samples and then what came live', () => {
    expect(times(loaded(30, sample(10), sample(20)), received(31), received(32))).toEqual([10, 20, 30, 31, 32])
  })

  it('keep what came live when the samples come late', () => {
    expect(times(received(30), received(31), loaded(32, sample(10), sample(20), sample(30)))).toEqual([
      10, 20, 30, 31, 32,
    ])
  })

  it('do not go back in time', () => {
    const state = after(received(31), received(30), loaded(29, sample(10)))

    expect(state.now?.at).toBe(iso(31))
    expect(state.points.map(({ at }) => at - start / 1000)).toEqual([10, 31])
  })

  it('are of one hour', () => {
    expect(times(loaded(0, sample(-10)), received(KEPT_MS / 1000 - 5), received(KEPT_MS / 1000 + 1))).toEqual([
      3595, 3601,
    ])
  })

  it('stay when they could not be asked for again', () => {
    expect(after({ type: 'failed' }).phase).toBe('failed')
    expect(after(received(1), { type: 'failed' }).phase).toBe('ready')
  })

  it('are live while they come and there is a connection; what was asked for is not live', () => {
    const state = after(received(1), loaded(9))

    expect(liveStatusOf(state, true, 1_000 + STALE_AFTER_MS)).toBe('live')
    expect(liveStatusOf(state, true, 1_001 + STALE_AFTER_MS)).toBe('stale')
    expect(liveStatusOf(state, false, 1_000)).toBe('stale')
  })

  it('are given the time to come when the page was just opened', () => {
    expect(liveStatusOf(after(loaded(1)), false, STALE_AFTER_MS)).toBe('opening')
    expect(liveStatusOf(after(loaded(1)), true, STALE_AFTER_MS + 1)).toBe('stale')
  })

  it('are drawn in columns, with holes where nobody knew', () => {
    const { points } = after(loaded(2, sample(1)), { type: 'received', figures: figures(3, null), at: 3_000 })

    expect(columns(points, ['connections', 'queue_waiting'])).toEqual([
      [1, 2, 3].map((second) => start / 1000 + second),
      [1, 2, null],
      [null, 0, 0],
    ])
    expect(rangeOf(points, 'connections')).toEqual({ min: 1, max: 2 })
    expect(rangeOf(points, 'publish_latency_ms')).toBeNull()
  })
})

it('a figure is read with one decimal while it is small, and as a dash when unknown', () => {
  expect([0, 3.14159, 1234.5].map(figure)).toEqual(['0', (3.1).toLocaleString(), (1235).toLocaleString()])
  expect([null, undefined].map(figure)).toEqual(['–', '–'])
})
