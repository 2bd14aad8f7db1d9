/**
 * Lets pusher-js, and Laravel Echo over it, miss nothing: a page that lost its connection gets the events it missed.
 *
 * The server does it for a client that names its session in the path. This adds what the client alone can do: it says
 * when it is no newcomer, answers authorizations after a reconnect from what it holds, drops events that come twice,
 * and tells when events are lost for good. No dependency; pusher-js is used as it is.
 */

export interface ResumableOptions {
  /** The class of pusher-js. Needed unless it is `window.Pusher`. Echo takes the same option. */
  Pusher?: unknown
  /** pusher-js' option; the session is appended. */
  wsPath?: string
  /** The same for the HTTP fallback. */
  httpPath?: string
  /**
   * Called when events of a channel can no longer be sent again, after it was subscribed anew. Load what the page
   * shows, or call `reload` to load the page itself. `reason` is `gap` (more was missed than is kept) or `unknown`
   * (the session is no longer known).
   */
  onGap?: (channel: string, reload: () => void, reason: string) => void
  /**
   * Returns what identifies an event among those of its channel and name; nothing if it cannot be told apart. The
   * default is the payload's `eventId`.
   */
  eventId?: (payload: unknown) => unknown
}

interface Authorization {
  auth: string
  channel_data?: string
}
type Answer = (error: Error | null, authorization: Authorization | null) => void
type Authorizer = (params: { channelName: string; socketId: string }, answer: Answer) => void

interface Event {
  event: string
  channel?: string
  data?: unknown
}

/** What is used of pusher-js. */
interface Pusher {
  options: { wsPath?: unknown }
  config: { channelAuthorizer: Authorizer }
  connection: { socket_id: string; emit(name: string, data?: unknown, metadata?: unknown): unknown }
  channel(name: string): { subscribed: boolean; subscriptionCancelled: boolean; subscribe(): void } | undefined
}

/** An authorization that can be shown again on the sockets that follow. */
interface Ticket {
  authorization: Authorization
  /** Milliseconds. */
  expiresAt: number
  /** The last socket it was shown on. */
  socketId: string
  /** Whether the server has still to answer it. */
  isShown: boolean
}

/** Events that are remembered, to know them when they come again. */
const MAX_REMEMBERED = 2_000

/**
 * Returns the options for `new Echo(…)` or `new Pusher(key, …)` with a session of their own: use them for one
 * connection. Throws if there is no pusher-js to be found.
 */
export function resumable<B extends string, T extends object>(options: T & ResumableOptions & { broadcaster?: B }): T {
  const library = (options.Pusher ?? (globalThis as { Pusher?: unknown }).Pusher) as
    { instances?: Pusher[] } | undefined
  if (!library?.instances) {
    throw new Error("resumable() needs pusher-js: pass it as { Pusher }, as in import Pusher from 'pusher-js'")
  }
  const { instances } = library
  const bytes = crypto.getRandomValues(new Uint8Array(18))
  const token = btoa(String.fromCharCode(...bytes))
    .replace(/\+/g, '-')
    .replace(/\//g, '_')
  let session: Session | undefined

  /**
   * A path that pusher-js reads each time it connects. The state goes along as a parameter of the path, because
   * pusher-js puts its own query behind it.
   */
  class Path extends String {
    override toString(): string {
      session ??= Session.of(
        instances.find((one) => one.options.wsPath === wsPath),
        options,
      )
      return `${super.toString()}/s/${token}${session.wasConnected ? ';fresh=0' : ''}`
    }
    override valueOf(): string {
      return this.toString()
    }
  }
  const wsPath = new Path(options.wsPath ?? '')
  return { ...options, wsPath, httpPath: new Path(options.httpPath ?? '') } as T
}

class Session {
  wasConnected = false
  private readonly tickets = new Map<string, Ticket>()
  private readonly remembered = new Set<string>()
  /** By channel, the socket on which it was first subscribed. */
  private readonly joined = new Map<string, string>()
  /** By channel, how many of the next events are sent again. */
  private readonly replayed = new Map<string, number>()

  static of(pusher: Pusher | undefined, options: ResumableOptions): Session {
    if (!pusher) throw new Error('resumable(): its options were given to another Pusher, or wsPath was replaced')
    return new Session(pusher, options)
  }

  private constructor(
    private readonly pusher: Pusher,
    private readonly options: ResumableOptions,
  ) {
    const { config, connection } = pusher
    const ask = config.channelAuthorizer.bind(config)
    config.channelAuthorizer = (params, answer) => this.authorize(params, answer, ask)
    const emit = connection.emit.bind(connection)
    connection.emit = (name, data, metadata) => {
      if (name === 'connected') this.wasConnected = true
      return name !== 'message' || this.lets(data as Event) ? emit(name, data, metadata) : connection
    }
  }

  private authorize(params: { channelName: string; socketId: string }, answer: Answer, ask: Authorizer): void {
    const { channelName, socketId } = params
    const ticket = this.tickets.get(channelName)
    if (ticket && ticket.socketId !== socketId && ticket.expiresAt > Date.now()) {
      ticket.socketId = socketId
      ticket.isShown = true
      answer(null, { ...ticket.authorization })
      return
    }
    this.tickets.delete(channelName)
    ask(params, (error, authorization) => {
      if (!error && authorization) {
        const expiresAt = expiryOf(authorization)
        // pusher-js takes the key of an encrypted channel out of what it is given.
        this.tickets.set(channelName, { authorization: { ...authorization }, expiresAt, socketId, isShown: false })
      }
      answer(error, authorization)
    })
  }

  /** Whether pusher-js is to handle a message of the server. */
  private lets({ event, channel, data }: Event): boolean {
    if (!channel) return true
    const { socket_id } = this.pusher.connection
    const ticket = this.tickets.get(channel)
    switch (event) {
      case 'pusher_internal:subscription_succeeded':
        if (ticket) ticket.isShown = false
        if (!this.joined.has(channel)) this.joined.set(channel, socket_id)
        this.replayed.delete(channel)
        return true
      case 'pusher:resume_success':
        this.replayed.set(channel, (data as { replayed: number }).replayed)
        return true
      case 'pusher:resume_failed':
        if (this.joined.get(channel) !== socket_id) {
          this.options.onGap?.(channel, () => location.reload(), (data as { reason: string }).reason)
        }
        return true
      case 'pusher:subscription_error':
        this.tickets.delete(channel)
        return !(ticket?.isShown && this.asksAgain(channel))
    }
    return /^(pusher|client-)/.test(event) || !this.isDouble(channel, event, data)
  }

  /** Subscribes after a refused ticket, with a new authorization; false if nobody wants the channel any more. */
  private asksAgain(name: string): boolean {
    const channel = this.pusher.channel(name)
    if (!channel || channel.subscribed || channel.subscriptionCancelled) return false
    channel.subscribe()
    return true
  }

  /**
   * Whether an event that is sent again was received before. Only those can come twice: applications may give events
   * of their own the same `eventId`.
   */
  private isDouble(channel: string, event: string, data: unknown): boolean {
    const left = this.replayed.get(channel) ?? 0
    if (left > 0) this.replayed.set(channel, left - 1)
    const id = (this.options.eventId ?? eventIdOf)(data)
    if (id == null) return false
    const key = JSON.stringify([channel, event, id, hash(JSON.stringify(data))])
    const isKnown = this.remembered.has(key)
    if (!isKnown && this.remembered.size >= MAX_REMEMBERED) {
      for (const oldest of this.remembered) {
        this.remembered.delete(oldest)
        break
      }
    }
    this.remembered.add(key)
    return isKnown && left > 0
  }
}

/** An encrypted event has no readable id, but a number that is used once. */
function eventIdOf(payload: unknown): unknown {
  const { eventId, nonce } = (payload ?? {}) as { eventId?: unknown; nonce?: unknown }
  return eventId ?? nonce
}

function expiryOf({ channel_data }: Authorization): number {
  try {
    const { expires_at } = JSON.parse(channel_data ?? '') as { expires_at?: unknown }
    return typeof expires_at === 'number' ? expires_at * 1000 : Infinity
  } catch {
    return Infinity // No JSON, no expiry: the server decides.
  }
}

function hash(text: string): number {
  let sum = 0
  for (let at = 0; at < text.length; at += 1) sum = (Math.imul(sum, 31) + text.charCodeAt(at)) | 0
  return sum
}
