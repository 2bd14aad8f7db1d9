import { expect, it } from 'vitest'
import { nameProblem } from '@/features/users/fields'

it.each([
  ['Ana', null],
  ['🎉'.repeat(100), null],
  ['   ', 'Enter the name others will see.'],
  ['🎉'.repeat(101), 'Use at most 100 characters.'],
])('a name is checked before the server is asked: %s', (name, told) => {
  expect(nameProblem(name)).toBe(told)
})
