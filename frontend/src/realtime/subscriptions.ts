/**
 * The subscriptions of features, over one Echo. A subscription passes the events of one channel to one feature: live
 * events as they arrive, durable ones without gaps or duplicates (`gap.ts`). Several subscriptions may share a channel;
 * it is left with the last of them.
 */
import { RequestFailed, SignedOut } from '@/api/errors'
import type { ChannelEvents, DurableEvent, EventPayloads } from '@/api/events'
import { eventsAfter } from '@/api/realtime'
import type { RealtimeEcho } from './echo'
import { Follower } from './gap'

export type ChannelName = keyof ChannelEvents

type Handlers<Name extends keyof EventPayloads> = { [N in Name]?: (payload: EventPayloads[N]) => void }

interface ChannelFeed<C extends ChannelName> {
  /** The wire name, prefix included. */
  channel: C
  /** Called with each event as it arrives. */
  live?: Handlers<ChannelEvents[C]>
}

interface LiveFeed<C extends ChannelName> extends ChannelFeed<C> {
  durable?: never
}

interface DurableFeed<C extends ChannelName> extends ChannelFeed<C> {
  /** Called with each durable event, once per loaded list. */
  durable: Handlers<ChannelEvents[C] & DurableEvent>
  /** Reloads the list; resolves to the last event it includes. */
  reload(): Promise<number>
}

export type Feed<C extends ChannelName> = LiveFeed<C> | DurableFeed<C>

export interface Subscription {
  /** The list was loaded; it includes its channel's events up to `eventId`. */
  loaded(eventId: number): void
  stop(): void
}

/** After a reconnection all pages would send requests at once; they are spread over this time. */
const SPREAD_MS = 3_000
/** A server that resumes says so right behind the subscription; one that does not says nothing. */
const ANSWER_MS = 2_000
const RETRY_MS = 4_000

type EchoChannel = ReturnType<RealtimeEcho['channel']>
type Handler = (payload: unknown) => void

/** From here on payloads are trusted to match their description; the server's tests hold it to that. */
const handlersOf = (typed: object = {}): [string, Handler][] => Object.entries(typed)

const NAMESPACE = 'App\\Events\\'

/** The name of an event as Echo listens for it. */
const eventName = (wireName: string): string =>
  wireName.startsWith(NAMESPACE) ? wireName.slice(NAMESPACE.length) : `.${wireName}`

/** Follows the durable events of one feed. */
class Listener {
  private readonly handlers: ReadonlyMap<string, Handler>
  private readonly follower: Follower
  private isSubscribed = false
  /** Whether the next subscription is a reconnection, at the same time as all other pages. */
  private isReconnecting = false
  private delayMs = 0
  private timer: ReturnType<typeof setTimeout> | undefined

  constructor({ channel, durable, reload }: DurableFeed<ChannelName>) {
    this.handlers = new Map(handlersOf(durable))
    this.follower = new Follower({
      channel,
      fetchAfter: eventsAfter,
      apply: ({ name, payload }) => this.handlers.get(eventName(name))?.(payload),
      reload,
    })
  }

  subscribed(): void {
    this.delayMs = this.isReconnecting ? Math.random() * SPREAD_MS : 0
    this.isSubscribed = true
    this.isReconnecting = true
    this.closeGap(this.follower.mayResume ? ANSWER_MS + this.delayMs : this.delayMs)
  }

  /** The server sends what was missed. */
  resumed(): void {
    this.follower.resumed()
    if (!this.follower.hasGapToClose) clearTimeout(this.timer)
  }

  /** The server cannot send what was missed. */
  notResumed(): void {
    this.follower.notResumed()
    this.closeGap(this.delayMs)
  }

  lost(): void {
    this.isSubscribed = false
    this.follower.lost()
    clearTimeout(this.timer)
  }

  left(): void {
    this.lost()
    this.isReconnecting = false
  }

  loaded(eventId: number): void {
    this.follower.loaded(eventId)
    this.closeGap(0)
  }

  /** What Echo is to call with each event. */
  get received(): [string, Handler][] {
    return [...this.handlers].map(([name, handler]) => [
      name,
      (payload) => {
        const eventId = Number((payload as { eventId?: unknown }).eventId)
        // A test event of an admin has no id.
        if (!Number.isSafeInteger(eventId) || this.follower.received(eventId)) handler(payload)
      },
    ])
  }

  /** Closes the gap once the list is loaded and the channel subscribed; retries until it succeeds. */
  private closeGap(delayMs: number): void {
    if (!this.isSubscribed || !this.follower.hasGapToClose) return
    clearTimeout(this.timer)
    this.timer = setTimeout(() => {
      this.follower.close().catch((error: unknown) => {
        const isFinal = error instanceof SignedOut || error instanceof RequestFailed
        if (!isFinal) this.closeGap(RETRY_MS + Math.random() * SPREAD_MS)
      })
    }, delayMs)
  }
}

interface SharedChannel {
  channel: EchoChannel
  listeners: Set<Listener>
  subscriptions: number
}

export class Subscriptions {
  private readonly channels = new Map<string, SharedChannel>()

  constructor(private readonly echo: RealtimeEcho) {}

  open<C extends ChannelName>(feed: Feed<C>): Subscription {
    const shared = this.channelFor(feed.channel)
    const { channel, listeners } = shared
    const listener = 'reload' in feed ? new Listener(feed) : null
    const handlers = [...(listener?.received ?? []), ...handlersOf(feed.live)]
    for (const [name, handler] of handlers) channel.listen(name, handler)
    shared.subscriptions += 1
    if (listener) {
      listeners.add(listener)
      if (isSubscribed(channel)) listener.subscribed()
    }
    return {
      loaded: (eventId) => listener?.loaded(eventId),
      stop: () => {
        listener?.lost()
        if (listener) listeners.delete(listener)
        for (const [name, handler] of handlers) channel.stopListening(name, handler)
        shared.subscriptions -= 1
        if (shared.subscriptions > 0) return
        this.channels.delete(feed.channel)
        this.echo.leaveChannel(feed.channel)
      },
    }
  }

  /** The connection was lost. */
  lost(): void {
    for (const { listeners } of this.channels.values()) listeners.forEach((listener) => listener.lost())
  }

  /** The user left this page. It will reconnect alone, so its requests need not be spread. */
  left(): void {
    for (const { listeners } of this.channels.values()) listeners.forEach((listener) => listener.left())
  }

  private channelFor(name: string): SharedChannel {
    const known = this.channels.get(name)
    if (known) return known
    const channel = channelOf(this.echo, name)
    const listeners = new Set<Listener>()
    const shared: SharedChannel = { channel, listeners, subscriptions: 0 }
    channel
      .subscribed(() => listeners.forEach((listener) => listener.subscribed()))
      .listen('.pusher:resume_success', () => listeners.forEach((listener) => listener.resumed()))
      .listen('.pusher:resume_failed', () => listeners.forEach((listener) => listener.notResumed()))
    this.channels.set(name, shared)
    return shared
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
