/**
 * Follows the durable events of one channel so that none is missed and none is applied twice.
 *
 * A follower knows up to which event its page holds everything (`after`). While the connection is up, each event
 * moves that mark. After a loss the mark stays where it was, events that come in meanwhile are remembered by id,
 * and `close` asks the server for what lies between. If the server no longer keeps that far back, the list is
 * loaded again. What was heard while a list was on its way is applied once more: the list took its place.
 */
import type { RecordedEvent, RecordedEvents } from '@/api/records'

export interface Feed {
  channel: string
  fetchAfter(channel: string, after: number): Promise<RecordedEvents>
  apply(event: RecordedEvent): void
  /** Loads the list again; resolves to the event it holds as its last. */
  reload(): Promise<number>
}

/** Enough requests for any gap that is worth closing event by event. */
const MOST_PAGES = 50

export class Follower {
  private after = 0
  private hasPosition = false
  private hasGap = true
  private readonly heardInGap = new Set<number>()
  private round = 0

  constructor(private readonly feed: Feed) {}

  /** The list was loaded and holds everything up to `eventId`. */
  loaded(eventId: number): void {
    this.hasPosition = true
    this.after = eventId
    this.hasGap = true
    this.heardInGap.clear()
  }

  /** The connection is gone: whatever is published from now on may be missed. */
  lost(): void {
    this.hasGap = true
    this.round += 1
  }

  /** An event came over the socket. False if it was applied before. */
  heard(eventId: number): boolean {
    if (this.hasPosition && eventId <= this.after) return false
    if (this.hasGap) {
      if (this.heardInGap.has(eventId)) return false
      this.heardInGap.add(eventId)
    } else {
      this.after = eventId
    }
    return true
  }

  /** Whether `close` has something to do. */
  get isOpen(): boolean {
    return this.hasGap && this.hasPosition
  }

  /**
   * Fetches and applies what was missed. Call it once the channel is subscribed. A loss meanwhile ends it quietly:
   * the next subscription closes the then larger gap. Raises what `fetchAfter` and `reload` raise.
   */
  async close(): Promise<void> {
    if (!this.isOpen) return
    this.round += 1
    const round = this.round
    for (let page = 0; page < MOST_PAGES; page += 1) {
      const { events, complete } = await this.feed.fetchAfter(this.feed.channel, this.after)
      if (round !== this.round) return
      if (!complete) {
        this.loaded(await this.feed.reload())
        if (round !== this.round) return
        continue
      }
      for (const event of events) {
        if (event.eventId <= this.after) continue
        this.after = event.eventId
        if (!this.heardInGap.delete(event.eventId)) this.feed.apply(event)
      }
      if (events.length === 0) {
        this.hasGap = false
        this.after = Math.max(this.after, ...this.heardInGap)
        this.heardInGap.clear()
        return
      }
    }
    this.loaded(await this.feed.reload())
    await this.close()
  }
}
