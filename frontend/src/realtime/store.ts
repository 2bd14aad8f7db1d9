/** The one connection of this page: opened while somebody is signed in. */
import { defineStore } from 'pinia'
import { computed, ref, shallowRef } from 'vue'
import { nameSocket } from '@/api/client'
import { realtimePlace } from '@/api/realtime'
import { connectionAfter, initialConnection, isUp, viewOf, type ConnectionEvent } from './connection'
import { buildEcho, retryNow, watchConnection, type RealtimeEcho } from './echo'

const PLACE_AGAIN_MS = 3_000
const TICK_MS = 500

export const useRealtime = defineStore('realtime', () => {
  const connection = ref(initialConnection(navigator.onLine))
  const echo = shallowRef<RealtimeEcho | null>(null)
  const now = ref(Date.now())
  const isConnected = computed(() => isUp(connection.value))
  const view = computed(() => viewOf(connection.value, now.value))

  let round = 0
  let unwatch: (() => void) | null = null
  let ticking: ReturnType<typeof setInterval> | undefined
  let wake: (() => void) | null = null

  function tell(event: ConnectionEvent): void {
    now.value = event.now
    connection.value = connectionAfter(connection.value, event)
    clearInterval(ticking)
    if (!isUp(connection.value)) ticking = setInterval(() => (now.value = Date.now()), TICK_MS)
  }

  /** Opens the connection; `ready` receives Echo before it connects, so that nothing is missed. */
  async function start(ready: (echo: RealtimeEcho) => void): Promise<void> {
    stop()
    round += 1
    const current = round
    for (;;) {
      try {
        const place = await realtimePlace()
        if (current !== round) return
        const built = buildEcho(place)
        echo.value = built
        nameSocket(() => built.socketId() ?? null)
        unwatch = watchConnection(built, tell)
        ready(built)
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

  function stop(): void {
    round += 1
    unwatch?.()
    unwatch = null
    clearInterval(ticking)
    nameSocket(() => null)
    echo.value?.disconnect()
    echo.value = null
    connection.value = initialConnection(navigator.onLine)
  }

  function retry(): void {
    if (echo.value) retryNow(echo.value)
    else wake?.()
  }

  return { connection, echo, view, isConnected, start, stop, retry }
})
