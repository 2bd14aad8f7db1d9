/** The live data of the admin pages, kept while any of them is open. */
import { defineStore } from 'pinia'
import { computed, ref, shallowRef, watch } from 'vue'
import * as http from '@/api/admin'
import type { ConsoleEntry } from '@/api/records'
import type { Subscription } from '@/realtime/subscriptions'
import { useRealtime } from '@/realtime/store'
import { consoleAfter, initialConsole, type ConsoleEvent } from './console'
import { figuresAfter, initialFigures, liveStatusOf, type FigureEvent } from './figures'

/** Entries that arrive within this time are shown together. */
const BATCH_MS = 200
const CHECK_EVERY_MS = 1_000
/** Without live metrics they are polled this often. */
const POLL_EVERY_MS = 5_000

export const useAdmin = defineStore('admin', () => {
  const realtime = useRealtime()
  const figures = shallowRef(initialFigures(Date.now()))
  const console = shallowRef(initialConsole)
  const now = ref(Date.now())
  const liveStatus = computed(() => liveStatusOf(figures.value, realtime.isConnected, now.value))
  const isStale = computed(() => liveStatus.value === 'stale')

  let subscription: Subscription | null = null
  let checking: ReturnType<typeof setInterval> | undefined
  let batching: ReturnType<typeof setTimeout> | undefined
  let batch: ConsoleEntry[] = []
  let isLoading = false
  let loadedAt = -Infinity

  function dispatchFigures(event: FigureEvent): void {
    figures.value = figuresAfter(figures.value, event)
  }

  function dispatch(event: ConsoleEvent): void {
    console.value = consoleAfter(console.value, event)
  }

  function show(): void {
    clearTimeout(batching)
    batching = undefined
    if (batch.length > 0) dispatch({ type: 'received', entries: batch })
    batch = []
  }

  function receive(entry: ConsoleEntry): void {
    batch.push(entry)
    batching ??= setTimeout(show, BATCH_MS)
  }

  async function load(): Promise<void> {
    if (isLoading) return
    isLoading = true
    loadedAt = Date.now()
    try {
      const { now: latest, history } = await http.overview()
      dispatchFigures({ type: 'loaded', now: latest, history })
    } catch {
      dispatchFigures({ type: 'failed' })
    } finally {
      isLoading = false
    }
  }

  function start(): void {
    stop()
    now.value = Date.now()
    subscription = realtime.follow({
      channel: 'private-admin',
      live: {
        AdminFigures: ({ figures: latest }) => {
          now.value = Date.now()
          dispatchFigures({ type: 'received', figures: latest, at: now.value })
        },
        AdminEvent: ({ entry }) => receive(entry),
      },
    })
    checking = setInterval(() => {
      now.value = Date.now()
      if (isStale.value && !document.hidden && now.value - loadedAt > POLL_EVERY_MS) void load()
    }, CHECK_EVERY_MS)
    void load()
  }

  function stop(): void {
    subscription?.stop()
    subscription = null
    clearInterval(checking)
    show()
    figures.value = initialFigures(Date.now())
    console.value = initialConsole
  }

  watch(
    () => realtime.isConnected,
    (isUp, wasUp) => {
      if (subscription === null || isUp || !wasUp) return
      show()
      dispatch({ type: 'lost' })
    },
  )

  return { figures, console, liveStatus, isStale, start, stop, load, dispatch }
})
