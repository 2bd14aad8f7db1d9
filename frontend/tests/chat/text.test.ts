import { expect, it } from 'vitest'
import { asSent, codePoints, isBlank, isFewEmoji } from '@/features/chat/text'

it('counts code points, not UTF-16 units', () => {
  expect(codePoints('😀'.repeat(1000))).toBe(1000)
  expect(codePoints('é')).toBe(1)
})

it('takes nothing but spaces and unseen characters for blank', () => {
  expect(isBlank(' \n\u200b\u3000\ufeff')).toBe(true)
  expect(isBlank(' . ')).toBe(false)
})

it('sends a text without empty lines around it, but with those inside', () => {
  expect(asSent('\n\n  one\r\n\r\ntwo  \n\n')).toBe('  one\n\ntwo')
})

it('shows one to three emoji large, and nothing else', () => {
  expect(['😀', '😀 👍🏽 👩‍👩‍👧', '🇩🇪'].map(isFewEmoji)).toEqual([true, true, true])
  expect(['😀😀😀😀', '1', '12', 'ok 😀', '#', ''].map(isFewEmoji)).toEqual([false, false, false, false, false, false])
})
