import { expect, it } from 'vitest'
import { linkify } from '@/features/chat/linkify'

const links = (text: string) => linkify(text).flatMap((part) => (part.kind === 'link' ? [part.text] : []))

it('never loses or adds a character', () => {
  const text = 'see https://example.com/a, or http://b.test. javascript:alert(1) <https://c.test>'

  expect(
    linkify(text)
      .map((part) => part.text)
      .join(''),
  ).toBe(text)
})

it.each([
  ['go to https://example.com.', ['https://example.com']],
  ['(see https://example.com/a_(b))', ['https://example.com/a_(b)']],
  ['"https://example.com/?a=1&b=2"!', ['https://example.com/?a=1&b=2']],
  ['HTTPS://EXAMPLE.COM and http://b.test/ä', ['HTTPS://EXAMPLE.COM', 'http://b.test/ä']],
])('finds the addresses in %s', (text, found) => {
  expect(links(text)).toEqual(found)
})

it.each([
  'javascript:alert(1)',
  'data:text/html,<script>alert(1)</script>',
  'ftp://example.com',
  'https://',
  'http://user:secret@example.com',
  'https://bank.example@evil.example',
  'example.com',
])('leaves %s as text', (text) => {
  expect(links(text)).toEqual([])
})

it('ends an address before characters that turn or hide text', () => {
  expect(links('https://example.com/\u202egpj.exe')).toEqual(['https://example.com/'])
})

it('finishes with long hostile texts', () => {
  const text = `${'https://'.repeat(5_000)} ${'(['.repeat(5_000)} https://example.com/${')'.repeat(2_000)}`

  expect(
    linkify(text)
      .map((part) => part.text)
      .join('') === text,
  ).toBe(true)
})
