import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { stillTyping, TYPING_SHOWN_MS, TypingPace, typingParts, typistsAfter } from '@/features/chat/typing'
import { ana, ben, eve } from '../records'

describe('who is typing', () => {
  it('is forgotten when no word of it comes any more', () => {
    const typists = typistsAfter([], { user: ben, typing: true }, 1000)

    expect(stillTyping(typists, 1000 + TYPING_SHOWN_MS - 1)).toBe(typists)
    expect(stillTyping(typists, 1000 + TYPING_SHOWN_MS)).toEqual([])
  })

  it('is forgotten at once when they stop', () => {
    const typists = typistsAfter([], { user: ben, typing: true }, 0)

    expect(typistsAfter(typists, { user: ben, typing: false }, 10)).toEqual([])
  })

  it('keeps its place when it is said again', () => {
    const two = typistsAfter(typistsAfter([], { user: ben, typing: true }, 0), { user: eve, typing: true }, 10)

    expect(typistsAfter(two, { user: ben, typing: true }, 20).map(({ name }) => name)).toEqual(['Ben', 'Eve'])
  })

  it('is one name, two names, or several people', () => {
    expect(typingParts([ana])).toEqual({ names: ['Ana'], words: 'is typing…' })
    expect(typingParts([ana, ben])).toEqual({ names: ['Ana', 'Ben'], words: 'are typing…' })
    expect(typingParts([ana, ben, eve])).toEqual({ names: [], words: 'Several people are typing…' })
    expect(typingParts([]).words).toBe('')
  })
})

describe('one’s own typing', () => {
  const say = vi.fn<(typing: boolean) => void>()
  beforeEach(() => {
    say.mockClear()
    vi.useFakeTimers()
  })
  afterEach(() => vi.useRealTimers())

  it('is said at most every three seconds', () => {
    const pace = new TypingPace(say)
    for (let passed = 0; passed < 3000; passed += 100) {
      pace.key()
      vi.advanceTimersByTime(100)
    }
    expect(say.mock.calls).toEqual([[true]])

    pace.key()
    expect(say.mock.calls).toEqual([[true], [true]])
  })

  it('ends five seconds after the last key', () => {
    const pace = new TypingPace(say)
    pace.key()
    vi.advanceTimersByTime(4999)
    expect(say).toHaveBeenCalledTimes(1)

    vi.advanceTimersByTime(1)
    expect(say).toHaveBeenLastCalledWith(false)
  })

  it('needs no end when the message is sent: the server knows', () => {
    const pace = new TypingPace(say)
    pace.key()
    pace.sent()
    vi.advanceTimersByTime(60_000)

    expect(say.mock.calls).toEqual([[true]])
  })
})
