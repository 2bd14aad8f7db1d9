/**
 * The subscriptions of features, over one Echo. A line is the subscription of one feature to one channel: it hears
 * live events, follows durable ones without gaps or duplicates (`gap.ts`), and closes its gap after every lost
 * connection. Several lines may share a channel; it is left with the last of them.
 */
import { Rejected, SignedOut } from '@/api/errors'
import { eventsAfter } from '@/api/realtime'
import type { RecordedEvent } from '@/api/records'
import type { RealtimeEcho } from './echo'
import { Follower } from './gap'

export type Payload = Record<string, unknown>

export interface Feed {
  /** The wire name, prefix included. */
  channel: string
  /** Class names of durable events. */
  events: readonly string[]
  /** Applies a durable event, once per loaded list; `name` is the class name. */
  apply(event: RecordedEvent): void
  /** Reloads the list; resolves to the last event it includes. */
  reload(): Promise<number>
  /** Live events, as they arrive. */
  live?: Record<string, (payload: Payload) => void>
}

export interface Line {
  /** The list was loaded; it includes its channel's events up to `eventId`. */
  loaded(eventId: number): void
  stop(): void
}

/** After a reconnection all pages would ask at once: their requests are spread over this time. */
const SPREAD_MS = 3_000
const AGAIN_MS = 4_000

type EchoChannel = ReturnType<RealtimeEcho['channel']>

export const className = (wireName: string): string => wireName.slice(wireName.lastIndexOf('\\') + 1)

class Ear {
  readonly follower: Follower
  private isSubscribed = false
  /** Whether the next subscription is a reconnection, together with all other pages. */
  private comesInACrowd = false
  private timer: ReturnType<typeof setTimeout> | undefined

  constructor(readonly feed: Feed) {
    this.follower = new Follower({
      channel: feed.channel,
      fetchAfter: eventsAfter,
      apply: (event) => {
        const name = className(event.name)
        if (feed.events.includes(name)) feed.apply({ ...event, name })
      },
      reload: () => feed.reload(),
    })
  }

  subscribed(): void {
    const spread = this.comesInACrowd ? Math.random() * SPREAD_MS : 0
    this.isSubscribed = true
    this.comesInACrowd = true
    this.close(spread)
  }

  lost(): void {
    this.isSubscribed = false
    this.follower.lost()
    clearTimeout(this.timer)
  }

  left(): void {
    this.lost()
    this.comesInACrowd = false
  }

  loaded(eventId: number): void {
    this.follower.loaded(eventId)
    this.close(0)
  }

  heard(name: string, payload: Payload): void {
    const eventId = Number(payload['eventId'])
    const isNew = !Number.isSafeInteger(eventId) || this.follower.heard(eventId)
    if (isNew) this.feed.apply({ eventId, name, payload })
  }

  /** Closes the gap once the list is loaded and the channel subscribed; retries until it succeeds. */
  private close(delayMs: number): void {
    if (!this.isSubscribed || !this.follower.isOpen) return
    clearTimeout(this.timer)
    this.timer = setTimeout(() => {
      this.follower.close().catch((error: unknown) => {
        const isFinal = error instanceof SignedOut || error instanceof Rejected
        if (!isFinal) this.close(AGAIN_MS + Math.random() * SPREAD_MS)
      })
    }, delayMs)
  }
}

export class Lines {
  private readonly ears = new Map<string, Set<Ear>>()

  constructor(private readonly echo: RealtimeEcho) {}

  open(feed: Feed): Line {
    const channel = channelOf(this.echo, feed.channel)
    let here = this.ears.get(feed.channel)
    if (!here) {
      here = new Set()
      this.ears.set(feed.channel, here)
      const all = here
      channel.subscribed(() => all.forEach((ear) => ear.subscribed()))
    }
    const ear = new Ear(feed)
    here.add(ear)
    const heard = feed.events.map((name) => [name, (payload: Payload) => ear.heard(name, payload)] as const)
    const listened = [...heard, ...Object.entries(feed.live ?? {})]
    for (const [name, hear] of listened) channel.listen(name, hear)
    if (isSubscribed(channel)) ear.subscribed()
    return {
      loaded: (eventId) => ear.loaded(eventId),
      stop: () => {
        ear.lost()
        here.delete(ear)
        for (const [name, hear] of listened) channel.stopListening(name, hear)
        if (here.size === 0) {
          this.ears.delete(feed.channel)
          this.echo.leaveChannel(feed.channel)
        }
      },
    }
  }

  /** The connection was lost. */
  lost(): void {
    for (const here of this.ears.values()) here.forEach((ear) => ear.lost())
  }

  /** The user left this page and will come back alone: then nothing needs to be spread. */
  left(): void {
    for (const here of this.ears.values()) here.forEach((ear) => ear.left())
  }
}

function channelOf(echo: RealtimeEcho, wireName: string): EchoChannel {
  if (wireName.startsWith('private-')) return echo.private(wireName.slice('private-'.length))
  if (wireName.startsWith('presence-')) return echo.join(wireName.slice('presence-'.length))
  return echo.channel(wireName)
}

function isSubscribed(channel: EchoChannel): boolean {
  return (channel as unknown as { subscription?: { subscribed?: boolean } }).subscription?.subscribed === true
}
