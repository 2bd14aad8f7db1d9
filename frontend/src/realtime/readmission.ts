/**
 * Reconnects after the server ended the connection for good (4009: blocked, password changed, disconnected by an
 * admin), and when the user returns to a page they had left. pusher-js does not reconnect then. Accounts that are
 * still signed in come back, at a limited rate; others do not.
 */
import { Rejected, SignedOut } from '@/api/errors'

/** The least time between two returns, and between two attempts. Milliseconds. */
export const RETURN_EVERY_MS = 4_000

export interface Door {
  /** Resolves if the account is still signed in; raises the errors of `api/`. */
  ask(): Promise<void>
  connect(): void
  /** The next attempt is in `ms` milliseconds. */
  waiting(ms: number): void
}

export class Readmission {
  private timer: ReturnType<typeof setTimeout> | undefined
  private returnedAt = -Infinity
  private round = 0

  constructor(private readonly door: Door) {}

  /** The server ended the connection. */
  ended(): void {
    this.after(Math.max(0, this.returnedAt + RETURN_EVERY_MS - Date.now()))
  }

  /** Tries at once. */
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
