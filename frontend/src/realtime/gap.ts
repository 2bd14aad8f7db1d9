/**
 * Follows the durable events of one channel so that none is missed and none is applied twice.
 *
 * `after` is the event up to which the page includes everything. While connected, each event moves it. After a lost
 * connection it stays where it was. If the realtime server can send the missed events again, they arrive as all others
 * do. Otherwise events that arrive in the meantime are remembered by id, and `close` fetches the events in between. If
 * the portal no longer keeps them, the list is reloaded. Events that arrived while a list was loading are applied again,
 * because the list replaced their effect.
 */
import type { RecordedEvent, RecordedEvents } from '@/api/records'

export interface Feed {
  channel: string
  fetchAfter(channel: string, after: number): Promise<RecordedEvents>
  apply(event: RecordedEvent): void
  /** Reloads the list; resolves to the last event it includes. */
  reload(): Promise<number>
}

/** Larger gaps are closed by a reload. */
const MAX_PAGES = 50

export class Follower {
  private after = 0
  private hasPosition = false
  private hasGap = true
  /** Whether the gap is only what the realtime server may send again. */
  private isResumable = false
  private readonly receivedInGap = new Set<number>()
  private generation = 0

  constructor(private readonly feed: Feed) {}

  /** The list was loaded and includes everything up to `eventId`. */
  loaded(eventId: number): void {
    this.hasPosition = true
    this.after = eventId
    this.hasGap = true
    this.isResumable = false
    this.receivedInGap.clear()
  }

  /** The connection was lost: events published from now on may be missed. */
  lost(): void {
    if (!this.hasGap) this.isResumable = true
    this.hasGap = true
    this.generation += 1
  }

  /** The server sends again what was missed since the connection was lost. */
  resumed(): void {
    if (this.isResumable) this.closed()
  }

  /** The server cannot do that. */
  notResumed(): void {
    this.isResumable = false
  }

  /** Whether the server may still say that it sends again what was missed. */
  get mayResume(): boolean {
    return this.isResumable
  }

  /** An event arrived over the socket. False if it was applied before. */
  received(eventId: number): boolean {
    if (this.hasPosition && eventId <= this.after) return false
    if (this.hasGap) {
      if (this.receivedInGap.has(eventId)) return false
      this.receivedInGap.add(eventId)
    } else {
      this.after = eventId
    }
    return true
  }

  /** Whether there is a gap to close. */
  get hasGapToClose(): boolean {
    return this.hasGap && this.hasPosition
  }

  /**
   * Fetches and applies missed events. Call it once the channel is subscribed. If the connection is lost in the
   * meantime, it ends quietly: the next subscription closes the larger gap. Raises what `fetchAfter` and `reload`
   * raise.
   */
  async close(): Promise<void> {
    if (!this.hasGapToClose) return
    this.isResumable = false
    this.generation += 1
    const generation = this.generation
    for (let page = 0; page < MAX_PAGES; page += 1) {
      const { events, complete } = await this.feed.fetchAfter(this.feed.channel, this.after)
      if (generation !== this.generation) return
      if (!complete) {
        this.loaded(await this.feed.reload())
        if (generation !== this.generation) return
        continue
      }
      for (const event of events) {
        if (event.eventId <= this.after) continue
        this.after = event.eventId
        if (!this.receivedInGap.delete(event.eventId)) this.feed.apply(event)
      }
      if (events.length === 0) {
        this.closed()
        return
      }
    }
    this.loaded(await this.feed.reload())
    await this.close()
  }

  private closed(): void {
    this.hasGap = false
    this.isResumable = false
    this.after = Math.max(this.after, ...this.receivedInGap)
    this.receivedInGap.clear()
  }
}
