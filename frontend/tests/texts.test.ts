/** What people write: addresses become links, nothing else becomes anything. */
import { describe, expect, it } from 'vitest'
import { linkify } from '@/features/chat/linkify'
import { asSent, codePoints, isBlank } from '@/features/chat/text'
import { initialConnection, connectionAfter, viewOf } from '@/realtime/connection'
import { LEAVE_HIDDEN_MS, membersAfter } from '@/features/presence/members'

const links = (text: string) => linkify(text).flatMap((part) => (part.kind === 'link' ? [part.href] : []))

describe('links', () => {
  it.each([
    ['see https://example.com/a?b=1.', ['https://example.com/a?b=1']],
    ['(https://example.com/x_(y))', ['https://example.com/x_(y)']],
    ['http://a.example and https://b.example', ['http://a.example/', 'https://b.example/']],
    ['javascript:alert(1)', []],
    ['data:text/html,<script>', []],
    ['https://user:pass@evil.example/', []],
    ['HTTPS://EXAMPLE.COM', ['https://example.com/']],
    ['no link here', []],
  ])('%s', (text, expected) => expect(links(text)).toEqual(expected))

  it('put together are the text again', () => {
    const text = 'a https://example.com, b <b> https://x.example/ü c'
    expect(linkify(text).map((part) => part.text).join('')).toBe(text)
  })

  it('are looked for in long hostile texts too', () => {
    const text = `${'https://'.repeat(5_000)} ${'(['.repeat(5_000)} https://example.com/${')'.repeat(2_000)}`
    expect(linkify(text).map((part) => part.text).join('') === text).toBe(true)
  })
})

describe('lengths', () => {
  it('are counted in code points', () => expect(codePoints('😀'.repeat(1000))).toBe(1000))
  it.each(['', ' ', '\n\t', '\u200b', '\u00a0', '\u3164'])('blank: %j', (text) => expect(isBlank(text)).toBe(true))
  it('keep inner lines', () => expect(asSent('\n a\r\nb \n')).toBe(' a\nb'))
})

describe('the connection', () => {
  it('counts down to the next attempt, and says when there is no network', () => {
    let state = connectionAfter(initialConnection(true), { type: 'socket', state: 'connected', now: 0 })
    expect(viewOf(state, 0)).toEqual({ kind: 'connected' })
    state = connectionAfter(state, { type: 'retryIn', seconds: 5, now: 1_000 })
    expect(viewOf(state, 3_000)).toEqual({ kind: 'waiting', seconds: 3 })
    state = connectionAfter(state, { type: 'network', hasNetwork: false, now: 3_000 })

    expect(viewOf(state, 3_000)).toEqual({ kind: 'offline' })
  })
})

describe('members', () => {
  it('that leave are shown until a reload would be over', () => {
    const here = membersAfter([], { type: 'here', members: [{ id: 1, name: 'Ana' }, { id: 2, name: 'Ben' }] })
    const leaving = membersAfter(here, { type: 'left', id: 2, now: 0 })
    expect(membersAfter(leaving, { type: 'swept', now: LEAVE_HIDDEN_MS - 1 })).toHaveLength(2)
    expect(membersAfter(leaving, { type: 'swept', now: LEAVE_HIDDEN_MS })).toHaveLength(1)

    const back = membersAfter(leaving, { type: 'joined', member: { id: 2, name: 'Ben' } })
    expect(membersAfter(back, { type: 'swept', now: LEAVE_HIDDEN_MS })).toHaveLength(2)
  })
})
