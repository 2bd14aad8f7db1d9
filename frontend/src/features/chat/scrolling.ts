/**
 * The scroll position of a room's messages. A reader at the end stays at the end; a reader further up is never moved:
 * older messages come in above without a jump, and new ones are counted.
 */
import { computed, nextTick, onBeforeUnmount, onMounted, ref, watch, type Ref } from 'vue'
import type { VirtualizerHandle } from 'virtua/vue'
import type { Past } from './past'
import type { RoomKey } from './rooms'
import type { Room } from './state'
import { useChat } from './store'
import type { TimelineRow } from './timeline'

/** This close to the end counts as the end. */
const END_PX = 64
/** This close to either end more messages are loaded. */
const EDGE_PX = 800

export interface ScrolledRoom {
  key: RoomKey
  scroller: Readonly<Ref<HTMLElement | null>>
  content: Readonly<Ref<HTMLElement | null>>
  /** Renders the rows that are in view. */
  list: Readonly<Ref<VirtualizerHandle | null>>
  /** What is shown: the present of the room, or a piece of its past. */
  shown: Readonly<Ref<Room | Past>>
  isPast: Readonly<Ref<boolean>>
  rows: Readonly<Ref<readonly TimelineRow[]>>
}

export function useScrolling({ key, scroller, content, list, shown, isPast, rows }: ScrolledRoom) {
  const chat = useChat()
  const isAtEnd = ref(true)
  /** Whether the reader has been placed where they begin. */
  const isPlaced = ref(false)
  const isLooking = ref(false)

  const missed = computed(() => (isAtEnd.value && !isPast.value ? 0 : chat.unreadOf(key)))
  const staysAtEnd = computed(() => isPlaced.value && isAtEnd.value && !isPast.value)

  function below(box: HTMLElement): number {
    return box.scrollHeight - box.scrollTop - box.clientHeight
  }

  function measure(): void {
    const box = scroller.value
    if (!box || !isPlaced.value) return
    isAtEnd.value = below(box) < END_PX
    chat.setSeen(isLooking.value ? lastSeen(box) : null, isAtEnd.value && !isPast.value)
  }

  /** The newest message in view, for what does not depend on whether the reader looks. */
  function lastInView(): number | null {
    return scroller.value ? lastSeen(scroller.value) : null
  }

  /** The newest message in view. */
  function lastSeen(box: HTMLElement): number | null {
    const all = rows.value
    const last = isAtEnd.value ? all.length - 1 : (list.value?.findItemIndex(box.scrollTop + box.clientHeight) ?? 0)
    const found = all.slice(0, last + 1).findLast((row) => row.kind === 'message')
    return found?.kind === 'message' ? found.message.id : null
  }

  /** Goes to the end of the present. */
  function toEnd(): void {
    if (isPast.value) chat.leavePast()
    isAtEnd.value = true
    void nextTick(() => {
      list.value?.scrollToIndex(rows.value.length - 1, { align: 'end' })
      measure()
    })
  }

  function onScroll(): void {
    if (!isPlaced.value) return
    measure()
    loadNear()
  }

  function loadNear(): void {
    const box = scroller.value
    if (!box) return
    if (box.scrollTop < EDGE_PX && shown.value.older === 'idle') void loadOlder()
    if (isPast.value && below(box) < EDGE_PX && chat.past?.newer === 'idle') void chat.loadPast('newer')
  }

  function loadOlder(): Promise<void> {
    return isPast.value ? chat.loadPast('older') : chat.loadOlder(key)
  }

  watch(
    rows,
    () => {
      if (staysAtEnd.value) list.value?.scrollToIndex(rows.value.length - 1, { align: 'end' })
      measure()
    },
    { flush: 'post' },
  )

  /** Puts the reader above new messages, or at the end. */
  async function place(): Promise<void> {
    await nextTick()
    const box = scroller.value
    if (!box || isPlaced.value) return
    const line = rows.value.findIndex(({ kind }) => kind === 'new')
    if (line < 0) list.value?.scrollToIndex(rows.value.length - 1, { align: 'end' })
    else list.value?.scrollToIndex(line, { align: 'start', offset: -box.clientHeight / 4 })
    isAtEnd.value = line < 0
    isPlaced.value = true
    await settled()
    measure()
    loadNear()
  }

  /** Shows the message that was jumped to in the middle. */
  async function goTo(id: number): Promise<void> {
    await place()
    await nextTick()
    const at = rows.value.findIndex((row) => row.kind === 'message' && row.message.id === id)
    if (at < 0) return
    isAtEnd.value = false
    list.value?.scrollToIndex(at, { align: 'center' })
    await settled()
    scroller.value?.querySelector<HTMLElement>(`[data-message="${id}"]`)?.focus({ preventScroll: true })
    measure()
  }

  /** Renders a row, and shows it. */
  async function bringIntoView(index: number): Promise<void> {
    list.value?.scrollToIndex(index, { align: 'nearest' })
    await settled()
  }

  /** Rows that came into view have been measured, and the position corrected. */
  async function settled(): Promise<void> {
    for (let frame = 0; frame < 3; frame += 1) await new Promise((then) => requestAnimationFrame(then))
  }

  watch(
    () => chat.target,
    (target) => target?.room === key && void goTo(target.id),
    { immediate: true, flush: 'post' },
  )
  watch(
    () => chat.hasBegun && !chat.isOpening && (rows.value.length === 0 || list.value !== null),
    (canBegin) => canBegin && void place(),
    { immediate: true, flush: 'post' },
  )

  function look(): void {
    isLooking.value = document.visibilityState === 'visible' && document.hasFocus()
    if (document.visibilityState === 'hidden') chat.leaving()
    measure()
  }

  let sizes: ResizeObserver | undefined
  onMounted(() => {
    look()
    document.addEventListener('visibilitychange', look)
    window.addEventListener('focus', look)
    window.addEventListener('blur', look)
    sizes = new ResizeObserver(() => {
      const box = scroller.value
      if (box && staysAtEnd.value) box.scrollTop = box.scrollHeight
    })
    if (scroller.value) sizes.observe(scroller.value)
    if (content.value) sizes.observe(content.value)
  })
  onBeforeUnmount(() => {
    document.removeEventListener('visibilitychange', look)
    window.removeEventListener('focus', look)
    window.removeEventListener('blur', look)
    sizes?.disconnect()
    chat.setSeen(null, true)
  })

  return { isAtEnd, isPlaced, missed, toEnd, onScroll, loadOlder, lastInView, bringIntoView }
}
