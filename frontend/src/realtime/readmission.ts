/**
 * What follows when the server ended the connection for good (4009: blocked, another password, sent away by an
 * admin), or the reader comes back to a page they had left. pusher-js stays away then. Whoever is still signed in comes
 * back, at a pace; nobody else does.
 */
import { Rejected, SignedOut } from '@/api/errors'

/** From one return to the next, at least; and between two tries to ask. Milliseconds. */
export const RETURN_EVERY_MS = 4_000

export interface Door {
  /** Resolves when the server says that somebody is signed in; raises what `api/` raises. */
  ask(): Promise<void>
  connect(): void
  /** The next try comes in so many milliseconds. */
  waiting(ms: number): void
}

export class Readmission {
  private timer: ReturnType<typeof setTimeout> | undefined
  private returnedAt = -Infinity
  private round = 0

  constructor(private readonly door: Door) {}

  /** The connection was ended. */
  ended(): void {
    this.after(Math.max(0, this.returnedAt + RETURN_EVERY_MS - Date.now()))
  }

  /** Try at once, whatever the pace. */
  now(): void {
    this.after(0)
  }

  stop(): void {
    this.round += 1
    clearTimeout(this.timer)
  }

  private after(ms: number): void {
    this.stop()
    if (ms > 0) this.door.waiting(ms)
    const { round } = this
    this.timer = setTimeout(() => void this.attempt(round), ms)
  }

  private async attempt(round: number): Promise<void> {
    try {
      await this.door.ask()
    } catch (error) {
      const isFinal = error instanceof SignedOut || error instanceof Rejected
      if (round === this.round && !isFinal) this.after(RETURN_EVERY_MS)
      return
    }
    if (round !== this.round) return
    this.returnedAt = Date.now()
    this.door.connect()
  }
}
