/** The live data of the admin pages, kept while any of them is open. */
import { defineStore } from 'pinia'
import { computed, ref, shallowRef, watch } from 'vue'
import * as http from '@/api/admin'
import type { ConsoleEntry, Figures } from '@/api/records'
import type { Line } from '@/realtime/lines'
import { useRealtime } from '@/realtime/store'
import { consoleAfter, initialConsole, type ConsoleEvent } from './console'
import { figuresAfter, initialFigures, livelinessOf, type FigureEvent } from './figures'

/** Entries that arrive within this time are shown together. */
const TOGETHER_MS = 200
const LOOK_EVERY_MS = 1_000
/** Without live metrics they are polled this often. */
const ASK_EVERY_MS = 5_000

export const useAdmin = defineStore('admin', () => {
  const realtime = useRealtime()
  const figures = shallowRef(initialFigures(Date.now()))
  const console = shallowRef(initialConsole)
  const now = ref(Date.now())
  const liveliness = computed(() => livelinessOf(figures.value, realtime.isConnected, now.value))
  const isStale = computed(() => liveliness.value === 'stale')

  let line: Line | null = null
  let looking: ReturnType<typeof setInterval> | undefined
  let gathering: ReturnType<typeof setTimeout> | undefined
  let gathered: ConsoleEntry[] = []
  let isAsking = false
  let askedAt = -Infinity

  function dispatchFigures(event: FigureEvent): void {
    figures.value = figuresAfter(figures.value, event)
  }

  function dispatch(event: ConsoleEvent): void {
    console.value = consoleAfter(console.value, event)
  }

  function show(): void {
    clearTimeout(gathering)
    gathering = undefined
    if (gathered.length > 0) dispatch({ type: 'heard', entries: gathered })
    gathered = []
  }

  function hear(entry: ConsoleEntry): void {
    gathered.push(entry)
    gathering ??= setTimeout(show, TOGETHER_MS)
  }

  async function load(): Promise<void> {
    if (isAsking) return
    isAsking = true
    askedAt = Date.now()
    try {
      const { now: latest, history } = await http.overview()
      dispatchFigures({ type: 'loaded', now: latest, history })
    } catch {
      dispatchFigures({ type: 'failed' })
    } finally {
      isAsking = false
    }
  }

  function start(): void {
    stop()
    now.value = Date.now()
    line = realtime.follow({
      channel: 'private-admin',
      events: [],
      apply: () => undefined,
      reload: () => Promise.resolve(0),
      live: {
        AdminFigures: (payload) => {
          now.value = Date.now()
          dispatchFigures({ type: 'heard', figures: payload['figures'] as Figures, at: now.value })
        },
        AdminEvent: (payload) => hear(payload['entry'] as ConsoleEntry),
      },
    })
    looking = setInterval(() => {
      now.value = Date.now()
      if (isStale.value && !document.hidden && now.value - askedAt > ASK_EVERY_MS) void load()
    }, LOOK_EVERY_MS)
    void load()
  }

  function stop(): void {
    line?.stop()
    line = null
    clearInterval(looking)
    show()
    figures.value = initialFigures(Date.now())
    console.value = initialConsole
  }

  watch(
    () => realtime.isConnected,
    (isUp, wasUp) => {
      if (line === null || isUp || !wasUp) return
      show()
      dispatch({ type: 'lost' })
    },
  )

  return { figures, console, liveliness, isStale, start, stop, load, dispatch }
})
