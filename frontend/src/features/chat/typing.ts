/** Who is typing in a room, and when to notify others. */
import type { Profile } from '@/api/records'

/** How long someone is shown as typing after the last event: twice the interval it is sent at. */
export const TYPING_SHOWN_MS = 6_000
/** Typing is sent at most this often. */
export const TYPING_INTERVAL_MS = 3_000
/** The shortest interval, even after a message was sent. */
export const TYPING_MIN_INTERVAL_MS = 1_000
/** Typing ends this long after the last key. */
export const TYPING_TIMEOUT_MS = 5_000

export interface Typist extends Profile {
  until: number
}

export function typistsAfter(
  typists: readonly Typist[],
  { user, typing }: { user: Profile; typing: boolean },
  now: number,
): readonly Typist[] {
  const current = stillTyping(typists, now)
  const said = { id: user.id, name: user.name, until: now + TYPING_SHOWN_MS }
  if (!typing) return current.filter(({ id }) => id !== user.id)
  return current.some(({ id }) => id === user.id)
    ? current.map((one) => (one.id === user.id ? said : one))
    : [...current, said]
}

/** Without expired typists; the same list if there are none. */
export function stillTyping(typists: readonly Typist[], now: number): readonly Typist[] {
  return typists.some(({ until }) => until <= now) ? typists.filter(({ until }) => until > now) : typists
}

/** Names and words apart, so that each name can have its own text direction. */
export function typingParts(typists: readonly Profile[]): { names: readonly string[]; words: string } {
  const [one, two] = typists
  if (!one) return { names: [], words: '' }
  if (!two) return { names: [one.name], words: 'is typing…' }
  if (typists.length === 2) return { names: [one.name, two.name], words: 'are typing…' }
  return { names: [], words: 'Several people are typing…' }
}

/** Notifies others of typing: `say(true)` at most every 3 s, `say(false)` 5 s after the last key. */
export class TypingPace {
  private saidAt = -Infinity
  private isOpen = false
  private end: ReturnType<typeof setTimeout> | undefined

  constructor(
    private readonly say: (typing: boolean) => void,
    private readonly now: () => number = Date.now,
  ) {}

  key(): void {
    if (this.now() - this.saidAt >= (this.isOpen ? TYPING_INTERVAL_MS : TYPING_MIN_INTERVAL_MS)) {
      this.saidAt = this.now()
      this.isOpen = true
      this.say(true)
    }
    clearTimeout(this.end)
    this.end = setTimeout(() => this.stop(), TYPING_TIMEOUT_MS)
  }

  /** The user stopped, left the room or emptied the field. */
  stop(): void {
    if (this.isOpen) this.say(false)
    this.sent()
  }

  /** The message was sent: the server ends the typing by itself. */
  sent(): void {
    clearTimeout(this.end)
    this.isOpen = false
  }
}
