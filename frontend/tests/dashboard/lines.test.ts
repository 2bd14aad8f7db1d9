/** The live console keeps the latest lines, holds them while paused, and says where some are missing. */
import { describe, expect, it } from 'vitest'
import type { Batch, Entry } from '@/dashboard/api'
import { asText, cleared, empty, MOST, paused, resumed, taken } from '@/dashboard/lines'

const entry = (event: string): Entry => ({ at: 1, kind: 'publish', event })
const batch = (events: string[], dropped = 0): Batch => ({ node: 'a:1', entries: events.map(entry), dropped })
const events = (lines: { shown: readonly { entry: Entry | null }[] }) => lines.shown.map((line) => line.entry?.event)

describe('the lines of a console', () => {
  it('show the newest first', () => {
    expect(events(taken(taken(empty, batch(['1', '2'])), batch(['3'])))).toEqual(['3', '2', '1'])
  })

  it('have keys of their own', () => {
    const { shown } = taken(taken(empty, batch(['1', '2'])), batch(['3']))

    expect(new Set(shown.map(({ key }) => key)).size).toBe(3)
  })

  it('say how many were dropped', () => {
    const [first] = taken(empty, batch(['1'], 7)).shown

    expect(first).toMatchObject({ entry: null, dropped: 7 })
  })

  it('keep no more than the latest', () => {
    const many = batch(Array.from({ length: MOST + 5 }, (_, index) => String(index)))

    expect(events(taken(empty, many))).toHaveLength(MOST)
    expect(events(taken(empty, many))[0]).toBe(String(MOST + 4))
  })

  it('hold what comes while paused, and show it after', () => {
    const held = taken(paused(taken(empty, batch(['1']))), batch(['2', '3']))

    expect(events(held)).toEqual(['1'])
    expect(held.held).toHaveLength(2)
    expect(events(resumed(held))).toEqual(['3', '2', '1'])
  })

  it('can be cleared, and copied oldest first', () => {
    const lines = taken(empty, batch(['1', '2']))

    expect(cleared(lines).shown).toEqual([])
    expect(
      asText(lines.shown)
        .split('\n')
        .map((line) => (JSON.parse(line) as Entry).event),
    ).toEqual(['1', '2'])
  })
})
