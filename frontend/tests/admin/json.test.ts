/** What the editor takes is what JSON.parse takes, and each mistake is told where it is. */
import { describe, expect, it } from 'vitest'
import { checkedObject, formatJson } from '@/features/admin/json'

const pieces = [
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  '"a"',
  '"\\n"',
  '"\\q"',
  '1',
  '-0.5e3',
  '01',
  '.5',
  'true',
  'nul',
  'null',
  ' ',
  '\n',
  "'",
  '"',
]

/** A small generator that is the same each time. */
function texts(count: number): string[] {
  let seed = 7
  const next = (below: number) => (seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648) % below
  return Array.from({ length: count }, () =>
    Array.from({ length: 1 + next(9) }, () => pieces[next(pieces.length)]).join(''),
  )
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
    ['', 1, 1, 'Unexpected end of text.'],
    ['{\n  "a": 1\n  "b": 2\n}', 3, 3, 'Expected , or }.'],
    ['{"a": 1,}', 1, 9, 'Expected a name in double quotes.'],
    ["{\n  'a': 1}", 2, 3, 'Expected a name in double quotes.'],
    ['{"a": hello}', 1, 7, 'Invalid value. Use double quotes for text.'],
    ['{"a": }', 1, 7, 'Expected a value.'],
    ['{"a": [1, 2}', 1, 12, 'Expected , or ].'],
    ['{"a": "b', 1, 7, 'Missing closing quote.'],
    ['{"a": "\\x"}', 1, 8, 'Invalid escape sequence. Write \\\\ for a backslash.'],
    ['{"a": 012}', 1, 7, 'Invalid number.'],
    ['{"a": 1} x', 1, 10, 'Unexpected text after the end.'],
    ['{"a": 1', 1, 8, 'Missing }.'],
    ['  [1]', 1, 3, 'Data must be a JSON object: { … }'],
    ['{"id": 12345678901234567890}', 1, 8, 'This number would lose precision. Put it in quotes.'],
  ])('tells where %j goes wrong', (text, line, column, problem) => {
    expect(checkedObject(text)).toMatchObject({ ok: false, line, column, problem })
  })

  it('refuses endless nesting without giving up itself', () => {
    expect(checkedObject(`{"a":${'['.repeat(50_000)}`)).toMatchObject({ ok: false, problem: 'Nested too deeply.' })
  })
})

it('lays JSON out and leaves everything else as it is', () => {
  expect(formatJson('{"a":1}')).toBe('{\n  "a": 1\n}')
  expect(formatJson('{"a":')).toBe('{"a":')
})
