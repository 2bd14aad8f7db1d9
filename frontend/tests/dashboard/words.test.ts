/** Durations, sizes and limits as people read them. */
import { describe, expect, it } from 'vitest'
import { bytes, duration, label, valueText } from '@/dashboard/words'

describe('words', () => {
  it.each([
    [0, '0 s'],
    [59.9, '59 s'],
    [60, '1 min'],
    [3_725, '1 h 2 min'],
    [3_605, '1 h'],
    [90_000, '1 d 1 h'],
    [-5, '0 s'],
  ])('a duration of %s s is %s', (seconds, words) => {
    expect(duration(seconds)).toBe(words)
  })

  it.each([
    [0, '0 B'],
    [1_023, '1,023 B'],
    [1_536, '1.5 KiB'],
    [5 * 1024 ** 3, '5 GiB'],
    [5_000 * 1024 ** 3, '5,000 GiB'],
  ])('%s bytes are %s', (count, words) => {
    expect(bytes(count)).toBe(words)
  })

  it.each([
    [null, 'No limit'],
    [true, 'Yes'],
    [10_240, '10,240'],
    [[60, 10], '60 per 10 s'],
  ])('a limit of %s is %s', (value, words) => {
    expect(valueText(value)).toBe(words)
  })

  it('names are labels', () => {
    expect(label('max_event_bytes')).toBe('Max event bytes')
  })
})
