import { expect, it } from 'vitest'
import { safeNext } from '@/app/router'
import { initials } from '@/shared/person'

it('goes back to a path of ours after signing in, and nowhere else', () => {
  expect(safeNext('/direct/2')).toBe('/direct/2')
  for (const elsewhere of ['//evil.example', '/\\evil.example', 'https://evil.example', 'javascript:1', undefined, ['/a']]) {
    expect(safeNext(elsewhere)).toBe('/')
  }
})

it('draws a person with the initials of the first and the last name', () => {
  expect(['Ana', 'Ana María Pérez', '李 小龙', '  ', '😀 smile'].map(initials)).toEqual(['A', 'AP', '李小', '?', '😀S'])
})
