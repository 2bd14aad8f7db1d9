/** Search results are text in pieces; found words are marked as the server's index finds them. */
import { describe, expect, it } from 'vitest'
import { excerpt, hasWord } from '@/features/chat/excerpt'

const shown = (message: string, asked: string) =>
  excerpt(message, asked)
    .map(({ text, isFound }) => (isFound ? `[${text}]` : text))
    .join('')

describe('an excerpt', () => {
  it.each([
    ['The spring sale begins', 'spring', 'The [spring] sale begins'],
    ['Springs in spring', 'SPR', '[Springs] in [spring]'],
    ['Überall Café', 'cafe uber', '[Überall] [Café]'],
    ['offspring', 'spring', 'offspring'],
    ['<b>bold</b>', 'bold', '<b>[bold]</b>'],
    ['a.b_c', 'b', 'a.[b]_c'],
    ['no word of it', 'else', 'no word of it'],
    ['😀 ok', 'ok', '😀 [ok]'],
  ])('of %j for %j is %j', (message, asked, wanted) => {
    expect(shown(message, asked)).toBe(wanted)
  })

  it('begins shortly before the first found word and says that something is left out', () => {
    const text = shown(`${'before '.repeat(50)}needle ${'after '.repeat(50)}`, 'needle')

    expect(text.startsWith('…before')).toBe(true)
    expect(text).toContain('[needle]')
    expect(text.endsWith('after…')).toBe(true)
    expect(text.length).toBeLessThan(160)
  })

  it.each(['😀'.repeat(500), 'x'.repeat(1000), ''])('never cuts a character in two', (message) => {
    const text = excerpt(message, 'x')
      .map((piece) => piece.text)
      .join('')

    expect(() => encodeURIComponent(text)).not.toThrow()
    expect(text.length).toBeLessThanOrEqual(142)
  })
})

it('a search needs a word', () => {
  expect(['', '  ', '"', '_', 'a', 'ä'].map(hasWord)).toEqual([false, false, false, false, true, true])
})
