/** The connection of this page, open while an account is signed in. */
import { defineStore } from 'pinia'
import { computed, ref, shallowRef } from 'vue'
import { provideSocketId } from '@/api/client'
import type { Profile } from '@/api/records'
import { realtimeEndpoint } from '@/api/realtime'
import { connectionAfter, initialConnection, isUp, viewOf, type ConnectionEvent } from './connection'
import type { RealtimeEcho } from './echo'
import { Reconnector } from './reconnector'
import { Subscriptions, type ChannelName, type Feed, type Subscription } from './subscriptions'

export interface PresenceHandlers {
  here(members: Profile[]): void
  joining(member: Profile): void
  leaving(member: Profile): void
}

/** What a feature subscribed to, attached to each new Echo. */
interface Attachment {
  attach(echo: RealtimeEcho, subscriptions: Subscriptions): void
  detach(): void
}

const RETRY_MS = 3_000
const TICK_MS = 500

export const useRealtime = defineStore('realtime', () => {
  const connection = ref(initialConnection(navigator.onLine))
  const echo = shallowRef<RealtimeEcho | null>(null)
  const now = ref(Date.now())
  const isConnected = computed(() => isUp(connection.value))
  const view = computed(() => viewOf(connection.value, now.value))

  const attachments = new Set<Attachment>()
  let subscriptions: Subscriptions | null = null
  let generation = 0
  let unwatch: (() => void) | null = null
  let ticking: ReturnType<typeof setInterval> | undefined
  let endWait: (() => void) | null = null
  let checkSession: () => Promise<void> = () => Promise.resolve()

  const reconnector = new Reconnector({
    checkSession: () => checkSession(),
    connect: retryNow,
    retryIn: (ms) => report({ type: 'retryIn', seconds: ms / 1000, now: Date.now() }),
  })

  function report(event: ConnectionEvent): void {
    now.value = event.now
    const wasUp = isUp(connection.value)
    connection.value = connectionAfter(connection.value, event)
    if (wasUp && !isUp(connection.value)) subscriptions?.lost()
    clearInterval(ticking)
    if (!isUp(connection.value)) ticking = setInterval(() => (now.value = Date.now()), TICK_MS)
  }

  /**
   * Opens the connection, with all requested subscriptions attached before it connects, so that nothing is missed.
   * `check` is called before reconnecting after the server ended the connection; it raises SignedOut if the account is
   * no longer signed in.
   */
  async function start(check: () => Promise<void>): Promise<void> {
    stop()
    checkSession = check
    window.addEventListener('pagehide', leave)
    window.addEventListener('pageshow', comeBack)
    generation += 1
    const current = generation
    for (;;) {
      try {
        // Messages are shown before the connection is up, and do not wait for its code.
        const [place, { buildEcho, watchConnection }] = await Promise.all([realtimeEndpoint(), import('./echo')])
        if (current !== generation) return
        const built = buildEcho(place)
        echo.value = built
        provideSocketId(() => built.socketId() ?? null)
        unwatch = watchConnection(built, report, () => reconnector.ended())
        const opened = new Subscriptions(built)
        subscriptions = opened
        attachments.forEach((one) => one.attach(built, opened))
        return
      } catch {
        if (current !== generation) return
        report({ type: 'retryIn', seconds: RETRY_MS / 1000, now: Date.now() })
        await new Promise<void>((resolve) => {
          endWait = resolve
          setTimeout(resolve, RETRY_MS)
        })
        if (current !== generation) return
      }
    }
  }

  /** A page that was left is disconnected, although the browser may keep it to come back to. */
  function leave(): void {
    reconnector.stop()
    echo.value?.disconnect()
    subscriptions?.left()
  }

  function comeBack(event: PageTransitionEvent): void {
    // Another tab may have signed in or out in the meantime.
    if (event.persisted && echo.value) reconnector.now()
  }

  function stop(): void {
    generation += 1
    window.removeEventListener('pagehide', leave)
    window.removeEventListener('pageshow', comeBack)
    reconnector.stop()
    subscriptions?.lost()
    attachments.forEach((one) => one.detach())
    subscriptions = null
    unwatch?.()
    unwatch = null
    clearInterval(ticking)
    provideSocketId(() => null)
    echo.value?.disconnect()
    echo.value = null
    connection.value = initialConnection(navigator.onLine)
  }

  /** Keeps something attached to the present Echo until the returned function is called. */
  function keepAttached(one: Attachment): () => void {
    attachments.add(one)
    if (echo.value && subscriptions) one.attach(echo.value, subscriptions)
    return () => {
      attachments.delete(one)
      one.detach()
    }
  }

  /** Follows a channel until `stop`, across every reconnection and new Echo. */
  function follow<C extends ChannelName>(feed: Feed<C>): Subscription {
    let subscription: Subscription | null = null
    let upTo: number | null = null
    const stop = keepAttached({
      attach: (_, opened) => {
        subscription = opened.open(feed)
        if (upTo !== null) subscription.loaded(upTo)
      },
      detach: () => {
        subscription?.stop()
        subscription = null
      },
    })
    return {
      loaded: (eventId) => {
        upTo = eventId
        subscription?.loaded(eventId)
      },
      stop,
    }
  }

  /** Joins a presence channel, named without its prefix, until the returned function is called. */
  function join(name: string, handlers: PresenceHandlers): () => void {
    let joined: RealtimeEcho | null = null
    return keepAttached({
      attach: (built) => {
        joined = built
        built
          .join(name)
          .here((members: Profile[]) => handlers.here(members))
          .joining((member: Profile) => handlers.joining(member))
          .leaving((member: Profile) => handlers.leaving(member))
      },
      detach: () => {
        joined?.leaveChannel(`presence-${name}`)
        joined = null
      },
    })
  }

  /** Ends a wait of pusher-js: it tries at once. */
  function retryNow(): void {
    echo.value?.connector.pusher.disconnect()
    echo.value?.connector.pusher.connect()
  }

  function retry(): void {
    if (echo.value && connection.value.socket === 'disconnected') reconnector.now()
    else if (echo.value) retryNow()
    else endWait?.()
  }

  return { connection, echo, view, isConnected, start, stop, follow, join, retry }
})
