/** The connection of this page, open while an account is signed in. */
import { defineStore } from 'pinia'
import { computed, ref, shallowRef } from 'vue'
import { nameSocket } from '@/api/client'
import type { Profile } from '@/api/records'
import { realtimePlace } from '@/api/realtime'
import { connectionAfter, initialConnection, isUp, viewOf, type ConnectionEvent } from './connection'
import { buildEcho, retryNow, watchConnection, type RealtimeEcho } from './echo'
import { Lines, type Feed, type Line } from './lines'
import { Readmission } from './readmission'

export interface PresenceEar {
  here(members: Profile[]): void
  joining(member: Profile): void
  leaving(member: Profile): void
}

/** A requested subscription, attached to the present Echo. */
interface Wish {
  attach(echo: RealtimeEcho, lines: Lines): void
  detach(): void
}

const PLACE_AGAIN_MS = 3_000
const TICK_MS = 500

export const useRealtime = defineStore('realtime', () => {
  const connection = ref(initialConnection(navigator.onLine))
  const echo = shallowRef<RealtimeEcho | null>(null)
  const now = ref(Date.now())
  const isConnected = computed(() => isUp(connection.value))
  const view = computed(() => viewOf(connection.value, now.value))

  const wishes = new Set<Wish>()
  let lines: Lines | null = null
  let round = 0
  let unwatch: (() => void) | null = null
  let ticking: ReturnType<typeof setInterval> | undefined
  let wake: (() => void) | null = null
  let askWho: () => Promise<void> = () => Promise.resolve()

  const readmission = new Readmission({
    ask: () => askWho(),
    connect: () => echo.value && retryNow(echo.value),
    waiting: (ms) => tell({ type: 'retryIn', seconds: ms / 1000, now: Date.now() }),
  })

  function tell(event: ConnectionEvent): void {
    now.value = event.now
    const wasUp = isUp(connection.value)
    connection.value = connectionAfter(connection.value, event)
    if (wasUp && !isUp(connection.value)) lines?.lost()
    clearInterval(ticking)
    if (!isUp(connection.value)) ticking = setInterval(() => (now.value = Date.now()), TICK_MS)
  }

  /**
   * Opens the connection, with all requested subscriptions attached before it connects, so that nothing is missed.
   * `whoIsSignedIn` is called before coming back after the server ended the connection; it raises SignedOut if the
   * account is not signed in any more.
   */
  async function start(whoIsSignedIn: () => Promise<void>): Promise<void> {
    stop()
    askWho = whoIsSignedIn
    window.addEventListener('pagehide', leave)
    window.addEventListener('pageshow', comeBack)
    round += 1
    const current = round
    for (;;) {
      try {
        const place = await realtimePlace()
        if (current !== round) return
        const built = buildEcho(place)
        echo.value = built
        nameSocket(() => built.socketId() ?? null)
        unwatch = watchConnection(built, tell, () => readmission.ended())
        const opened = new Lines(built)
        lines = opened
        wishes.forEach((wish) => wish.attach(built, opened))
        return
      } catch {
        if (current !== round) return
        tell({ type: 'retryIn', seconds: PLACE_AGAIN_MS / 1000, now: Date.now() })
        await new Promise<void>((resolve) => {
          wake = resolve
          setTimeout(resolve, PLACE_AGAIN_MS)
        })
        if (current !== round) return
      }
    }
  }

  /** A page that was left is disconnected, although the browser may keep it to come back to. */
  function leave(): void {
    readmission.stop()
    echo.value?.disconnect()
    lines?.left()
  }

  function comeBack(event: PageTransitionEvent): void {
    // Another tab may have signed out or in meanwhile.
    if (event.persisted && echo.value) readmission.now()
  }

  function stop(): void {
    round += 1
    window.removeEventListener('pagehide', leave)
    window.removeEventListener('pageshow', comeBack)
    readmission.stop()
    lines?.lost()
    wishes.forEach((wish) => wish.detach())
    lines = null
    unwatch?.()
    unwatch = null
    clearInterval(ticking)
    nameSocket(() => null)
    echo.value?.disconnect()
    echo.value = null
    connection.value = initialConnection(navigator.onLine)
  }

  function wish(one: Wish): () => void {
    wishes.add(one)
    if (echo.value && lines) one.attach(echo.value, lines)
    return () => {
      wishes.delete(one)
      one.detach()
    }
  }

  /** Follows a channel until `stop`, over every reconnection and new Echo. */
  function follow(feed: Feed): Line {
    let line: Line | null = null
    let upTo: number | null = null
    const stopWishing = wish({
      attach: (_, opened) => {
        line = opened.open(feed)
        if (upTo !== null) line.loaded(upTo)
      },
      detach: () => {
        line?.stop()
        line = null
      },
    })
    return {
      loaded: (eventId) => {
        upTo = eventId
        line?.loaded(eventId)
      },
      stop: stopWishing,
    }
  }

  /** Joins a presence channel, named without its prefix, until the returned function is called. */
  function join(name: string, ear: PresenceEar): () => void {
    let joined: RealtimeEcho | null = null
    return wish({
      attach: (built) => {
        joined = built
        built
          .join(name)
          .here((members: Profile[]) => ear.here(members))
          .joining((member: Profile) => ear.joining(member))
          .leaving((member: Profile) => ear.leaving(member))
      },
      detach: () => {
        joined?.leaveChannel(`presence-${name}`)
        joined = null
      },
    })
  }

  function retry(): void {
    if (echo.value && connection.value.socket === 'disconnected') readmission.now()
    else if (echo.value) retryNow(echo.value)
    else wake?.()
  }

  return { connection, echo, view, isConnected, start, stop, follow, join, retry }
})
