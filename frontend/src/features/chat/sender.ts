/**
 * Sends waiting messages one after the other, in the order they were written.
 *
 * A message that cannot go out now keeps waiting: without a network until it is back, over the limit until the server
 * accepts more. A message that the server refuses fails, and the user decides. Every attempt uses the message's own
 * idempotency key.
 */
import { ValidationFailed, RequestFailed, SignedOut, RateLimited, Unreachable, describeError } from '@/api/errors'
import type { Message } from '@/api/records'
import { nextToSend, type ChatEvent, type ChatState, type Outgoing } from './state'

export interface SenderPorts {
  state(): ChatState
  dispatch(event: ChatEvent): void
  send(outgoing: Outgoing): Promise<Message>
  /** Whether trying makes sense: there is a network. */
  canTry(): boolean
  /** Whether the connection is up: then a missing answer counts as a failure. */
  isConnected(): boolean
  /** The server accepts no messages until `time`; null: it accepts them again. */
  slowedUntil(time: number | null): void
}

const MAX_TRIES = 3
const MAX_WAIT_S = 15

export class Sender {
  private pause: ReturnType<typeof setTimeout> | null = null
  private isOver = false

  constructor(private readonly ports: SenderPorts) {}

  /** Sends the next message, unless one is being sent. */
  pump(): void {
    if (this.isOver || this.pause !== null || !this.ports.canTry()) return
    const next = nextToSend(this.ports.state())
    if (next) void this.attempt(next)
  }

  /** The network or the connection is back: ends the wait. */
  resume(): void {
    this.endPause()
    this.pump()
  }

  stop(): void {
    this.isOver = true
    this.endPause()
  }

  private async attempt(outgoing: Outgoing): Promise<void> {
    this.ports.dispatch({ type: 'sending', key: outgoing.key })
    try {
      const message = await this.ports.send(outgoing)
      if (!this.isOver) this.ports.dispatch({ type: 'sent', key: outgoing.key, message })
    } catch (error) {
      if (!this.isOver) this.settle(outgoing.key, outgoing.tries + 1, error)
    }
    this.pump()
  }

  private settle(key: string, tries: number, error: unknown): void {
    const { dispatch } = this.ports
    if (error instanceof RateLimited) {
      dispatch({ type: 'putBack', key })
      this.ports.slowedUntil(Date.now() + error.retryAfterS * 1000)
      this.wait(error.retryAfterS)
    } else if (error instanceof SignedOut) {
      // The next session has its own sender.
      dispatch({ type: 'putBack', key })
      this.stop()
    } else if (error instanceof Unreachable && (tries < MAX_TRIES || !this.ports.isConnected())) {
      dispatch({ type: 'putBack', key })
      if (this.ports.canTry()) this.wait(error.retryAfterS ?? Math.min(MAX_WAIT_S, 2 ** (tries - 1)))
    } else {
      const isKnown =
        error instanceof ValidationFailed || error instanceof RequestFailed || error instanceof Unreachable
      dispatch({ type: 'sendFailed', key, problem: isKnown ? describeError(error) : 'Something went wrong.' })
    }
  }

  private wait(seconds: number): void {
    this.endPause()
    this.pause = setTimeout(() => this.resume(), seconds * 1000)
  }

  private endPause(): void {
    if (this.pause === null) return
    clearTimeout(this.pause)
    this.pause = null
    this.ports.slowedUntil(null)
  }
}
