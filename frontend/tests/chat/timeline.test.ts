import { expect, it } from 'vitest'
import type { Outgoing } from '@/features/chat/state'
import { timeline, type TimelineInput } from '@/features/chat/timeline'
import { ana, ben, said } from '../records'

const rows = (input: Partial<TimelineInput>) =>
  timeline({ me: ana.id, messages: [], outgoing: [], rowKeys: {}, firstNew: null, ...input })

const at = (day: number, hour: number, minute: number) => new Date(2026, 4, day, hour, minute).toISOString()

it('opens each day once, and groups what one person says within five minutes', () => {
  const shown = rows({
    messages: [
      said({ id: 1, at: at(1, 9, 0) }),
      said({ id: 2, at: at(1, 9, 4) }),
      said({ id: 3, at: at(1, 9, 10) }),
      said({ id: 4, by: ana, at: at(1, 9, 11) }),
      said({ id: 5, by: ana, at: at(2, 9, 11) }),
    ],
  })

  expect(shown.map(({ kind }) => kind)).toEqual(['day', 'message', 'message', 'message', 'message', 'day', 'message'])
  expect(shown.flatMap((row) => (row.kind === 'message' ? [[row.startsGroup, row.endsGroup]] : []))).toEqual([
    [true, false],
    [false, true],
    [true, true],
    [true, true],
    [true, true],
  ])
})

it('draws the line above the first new message and opens a group below it', () => {
  const shown = rows({ messages: [said({ id: 1 }), said({ id: 2 })], firstNew: 2 })

  expect(shown.map(({ kind }) => kind)).toEqual(['day', 'message', 'new', 'message'])
  expect(shown[3]).toMatchObject({ startsGroup: true })
})

it('marks own messages only, as read only where there are receipts', () => {
  const marks = rows({
    messages: [
      said({ id: 1, by: ana }),
      said({ id: 2, by: ana, to: ben }),
      said({ id: 3, by: ana, to: ben, isRead: true }),
      said({ id: 4, by: ben, to: ana, isRead: true }),
    ],
  }).flatMap((row) => (row.kind === 'message' ? [row.mark] : []))

  expect(marks).toEqual(['sent', 'sent', 'read', null])
})

it('keeps the key a message had on its way', () => {
  const waiting: Outgoing = {
    key: 'b',
    room: 'general',
    text: 'later',
    status: 'waiting',
    problem: null,
    tries: 0,
    made_at: at(1, 9, 1),
    echo: null,
  }
  const shown = rows({
    messages: [said({ id: 1, by: ana, at: at(1, 9, 0) })],
    outgoing: [waiting],
    rowKeys: { 1: 'a' },
  })

  expect(shown.map(({ key }) => key)).toEqual(['day-a', 'a', 'b'])
})
