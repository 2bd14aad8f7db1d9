/** The console keeps the newest, holds back while paused, and finds what is looked for. */
import { describe, expect, it } from 'vitest'
import type { ConsoleEntry, ConsoleKind } from '@/api/records'
import {
  asText,
  consoleAfter,
  initialConsole,
  MAX_LINES,
  offeredKinds,
  shownLines,
  type ConsoleEvent,
  type Line,
} from '@/features/admin/console'

const entry = (name: string, kind: ConsoleKind = 'event', channel: string | null = 'chat'): ConsoleEntry => ({
  kind,
  at: '2026-01-01T00:00:00Z',
  channel,
  name,
  detail: { user_id: '7' },
})
const received = (...names: string[]): ConsoleEvent => ({ type: 'received', entries: names.map((name) => entry(name)) })
const after = (...events: ConsoleEvent[]) => events.reduce(consoleAfter, initialConsole)
const names = (lines: readonly Line[]) => lines.map((line) => line.entry?.name ?? '(gap)')
const many = (from: number, count: number) => Array.from({ length: count }, (_, index) => String(from + index))

describe('the console', () => {
  it('shows the newest first', () => {
    expect(names(after(received('a', 'b'), received('c')).lines)).toEqual(['c', 'b', 'a'])
  })

  it('keeps the newest 500, and gives each line a key of its own', () => {
    const { lines } = after(received(...many(0, 400)), received(...many(400, 400)))

    expect(lines.length).toBe(MAX_LINES)
    expect([names(lines)[0], names(lines).at(-1)]).toEqual(['799', '300'])
    expect(new Set(lines.map(({ key }) => key)).size).toBe(MAX_LINES)
  })

  it('holds back while paused, counts what came, and shows it when it goes on', () => {
    const paused = after(received('a'), { type: 'paused' }, received('b', 'c'))

    expect([names(paused.lines), paused.heldCount]).toEqual([['a'], 2])
    const resumed = consoleAfter(paused, { type: 'resumed' })
    expect([names(resumed.lines), resumed.heldCount, resumed.held]).toEqual([['c', 'b', 'a'], 0, []])
  })

  it('holds back no more than it keeps, and still counts all', () => {
    const paused = after({ type: 'paused' }, received(...many(0, 600)))

    expect([paused.held.length, paused.heldCount]).toEqual([MAX_LINES, 600])
  })

  it('is empty when cleared, paused or not', () => {
    const { lines, held, heldCount, isPaused } = after(received('a'), { type: 'paused' }, received('b'), {
      type: 'cleared',
    })

    expect([lines, held, heldCount, isPaused]).toEqual([[], [], 0, true])
  })

  it('says once where it was cut off, and not before anything came', () => {
    expect(
      names(after({ type: 'lost' }, received('a'), { type: 'lost' }, { type: 'lost' }, received('b')).lines),
    ).toEqual(['b', '(gap)', 'a'])
  })
})

describe('the filter', () => {
  const { lines } = after(
    {
      type: 'received',
      entries: [
        entry('MessageSent'),
        entry('Whisper', 'client_event', 'presence-x'),
        entry('', 'join', 'presence-chat'),
      ],
    },
    { type: 'lost' },
  )

  it('is by kind and by text, in whatever case, and keeps where the page was cut off', () => {
    expect(shownLines(lines, new Set(), '')).toEqual(lines)
    expect(names(shownLines(lines, new Set(['client_event']), ''))).toEqual(['(gap)', 'Whisper'])
    expect(names(shownLines(lines, new Set(), ' messagesent '))).toEqual(['(gap)', 'MessageSent'])
    expect(names(shownLines(lines, new Set(), 'user id: 7'))).toEqual(['(gap)', '', 'Whisper', 'MessageSent'])
    expect(names(shownLines(lines, new Set(['join']), 'x'))).toEqual(['(gap)'])
  })

  it('is copied as text, oldest first', () => {
    expect(asText(lines.slice(0, 2)).split('\n')).toEqual([
      '2026-01-01T00:00:00Z  Join  presence-chat  user id: 7',
      '(disconnected: events from this period are missing)',
    ])
  })

  it('offers no filter for kinds that may never come, until one has come or is chosen', () => {
    const quiet = offeredKinds([], new Set())
    const opened = after({ type: 'received', entries: [entry('a', 'occupied')] }).lines

    expect(quiet).toEqual(['event', 'join', 'leave', 'error', 'audit'])
    expect(offeredKinds(opened, new Set())).toContain('occupied')
    expect(offeredKinds([], new Set<ConsoleKind>(['vacated']))).toContain('vacated')
  })
})
