/**
 * Reconnects after the server ended the connection for good (4009: blocked, password changed, disconnected by an
 * admin), and when the user returns to a page they had left. pusher-js does not reconnect then. Accounts that are
 * still signed in reconnect, at a limited rate; others do not.
 */
import { RequestFailed, SignedOut } from '@/api/errors'

/** The shortest time between two reconnections, and between two attempts. Milliseconds. */
export const RECONNECT_EVERY_MS = 4_000

export interface ReconnectorPorts {
  /** Resolves if the account is still signed in; raises the errors of `api/`. */
  checkSession(): Promise<void>
  connect(): void
  /** The next attempt is in `ms` milliseconds. */
  retryIn(ms: number): void
}

export class Reconnector {
  private timer: ReturnType<typeof setTimeout> | undefined
  private reconnectedAt = -Infinity
  private generation = 0

  constructor(private readonly ports: ReconnectorPorts) {}

  /** The server ended the connection. */
  ended(): void {
    this.after(Math.max(0, this.reconnectedAt + RECONNECT_EVERY_MS - Date.now()))
  }

  /** Tries at once. */
  now(): void {
    this.after(0)
  }

  stop(): void {
    this.generation += 1
    clearTimeout(this.timer)
  }

  private after(ms: number): void {
    this.stop()
    if (ms > 0) this.ports.retryIn(ms)
    const { generation } = this
    this.timer = setTimeout(() => void this.attempt(generation), ms)
  }

  private async attempt(generation: number): Promise<void> {
    try {
      await this.ports.checkSession()
    } catch (error) {
      const isFinal = error instanceof SignedOut || error instanceof RequestFailed
      if (generation === this.generation && !isFinal) this.after(RECONNECT_EVERY_MS)
      return
    }
    if (generation !== this.generation) return
    this.reconnectedAt = Date.now()
    this.ports.connect()
  }
}
