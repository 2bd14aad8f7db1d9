/** What the editor takes is what JSON.parse takes, and each mistake is told where it is. */
import { describe, expect, it } from 'vitest'
import { checkedObject, laidOut } from '@/features/admin/json'

const pieces = ['{', '}', '[', ']', ',', ':', '"a"', '"\\n"', '"\\q"', '1', '-0.5e3', '01', '.5', 'true', 'nul', 'null', ' ', '\n', "'", '"']

/** A small generator that is the same each time. */
function texts(count: number): string[] {
  let seed = 7
  const next = (below: number) => (seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648) % below
  return Array.from({ length: count }, () => Array.from({ length: 1 + next(9) }, () => pieces[next(pieces.length)]).join(''))
}

function parses(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

describe('the editor', () => {
  it('agrees with JSON.parse on whatever is written', () => {
    for (const text of [...texts(20_000), '{"a":{"b":[1,2,{"c":null}]}}', '{"a":[]}', '{}', ' { } ']) {
      const isObject = parses(text) && text.trim().startsWith('{')
      expect([text, checkedObject(text).ok]).toEqual([text, isObject])
    }
  })

  it.each([
    ['', 1, 1, 'The text ends too early.'],
    ['{\n  "a": 1\n  "b": 2\n}', 3, 3, 'A , or } must be here.'],
    ['{"a": 1,}', 1, 9, 'A name in double quotes must be here.'],
    ["{\n  'a': 1}", 2, 3, 'A name in double quotes must be here.'],
    ['{"a": hello}', 1, 7, 'This is no value: text needs double quotes.'],
    ['{"a": }', 1, 7, 'A value must be here.'],
    ['{"a": [1, 2}', 1, 12, 'A , or ] must be here.'],
    ['{"a": "b', 1, 7, 'This text has no closing quote.'],
    ['{"a": "\\x"}', 1, 8, 'This is no escape: write \\\\ for a backslash.'],
    ['{"a": 012}', 1, 7, 'This is no number.'],
    ['{"a": 1} x', 1, 10, 'Nothing may follow after the end.'],
    ['{"a": 1', 1, 8, 'A } is missing.'],
    ['  [1]', 1, 3, 'It must be an object: { … }'],
    ['{"id": 12345678901234567890}', 1, 8, 'This number would not arrive as it is written: put it in quotes.'],
  ])('tells where %j goes wrong', (text, line, column, problem) => {
    expect(checkedObject(text)).toMatchObject({ ok: false, line, column, problem })
  })

  it('refuses endless nesting without giving up itself', () => {
    expect(checkedObject(`{"a":${'['.repeat(50_000)}`)).toMatchObject({ ok: false, problem: 'Too many levels inside one another.' })
  })
})

it('lays JSON out and leaves everything else as it is', () => {
  expect(laidOut('{"a":1}')).toBe('{\n  "a": 1\n}')
  expect(laidOut('{"a":')).toBe('{"a":')
})
