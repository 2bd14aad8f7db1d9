/** Runs what a page does after a reconnection. */
import { onScopeDispose, watch } from 'vue'
import { useRealtime } from './store'

/** All pages reconnect together; their requests are spread over this time. */
const SPREAD_MS = 3_000

/** Calls `act` a moment after each reconnection, for as long as the component lives. */
export function onReconnected(act: () => void): void {
  const realtime = useRealtime()
  let timer: ReturnType<typeof setTimeout> | undefined
  watch(
    () => realtime.isConnected,
    (isUp, wasUp) => {
      clearTimeout(timer)
      if (isUp && !wasUp) timer = setTimeout(act, Math.random() * SPREAD_MS)
    },
  )
  onScopeDispose(() => clearTimeout(timer))
}
