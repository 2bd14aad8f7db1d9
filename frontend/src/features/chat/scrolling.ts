/**
 * The scroll position of a room's messages. A reader at the end stays at the end; a reader further up is never moved:
 * older messages come in above without a jump, and new ones are counted.
 */
import { computed, nextTick, onBeforeUnmount, onMounted, ref, watch, type Ref } from 'vue'
import type { Past } from './past'
import type { RoomKey } from './rooms'
import { roomIn, type Room } from './state'
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
  /** What is shown: the present of the room, or a piece of its past. */
  shown: Readonly<Ref<Room | Past>>
  isPast: Readonly<Ref<boolean>>
  rows: Readonly<Ref<readonly TimelineRow[]>>
}

export function useScrolling({ key, scroller, content, shown, isPast, rows }: ScrolledRoom) {
  const chat = useChat()
  const isAtEnd = ref(true)
  /** Whether the reader has been placed where they begin. */
  const isPlaced = ref(false)
  /** The newest message when the reader was last at the end, or had seen everything. */
  const endId = ref(0)

  const missed = computed(() =>
    isAtEnd.value || isPast.value
      ? 0
      : shown.value.messages.filter(({ id, user_id }) => id > endId.value && user_id !== chat.me).length,
  )
  const staysAtEnd = computed(() => isPlaced.value && isAtEnd.value && !isPast.value)

  function below(box: HTMLElement): number {
    return box.scrollHeight - box.scrollTop - box.clientHeight
  }

  function measure(): void {
    const box = scroller.value
    if (!box) return
    isAtEnd.value = below(box) < END_PX
    if (isAtEnd.value && !isPast.value) endId.value = shown.value.messages.at(-1)?.id ?? 0
  }

  /** Goes to the end of the present. */
  function toEnd(): void {
    if (isPast.value) chat.leavePast()
    isAtEnd.value = true
    void nextTick(() => {
      const box = scroller.value
      if (box) box.scrollTop = box.scrollHeight
      measure()
    })
  }

  function onScroll(): void {
    if (!isPlaced.value) return
    measure()
    const box = scroller.value
    if (!box) return
    if (box.scrollTop < EDGE_PX && shown.value.older === 'idle') void loadOlder()
    if (isPast.value && below(box) < EDGE_PX && chat.past?.newer === 'idle') void chat.loadPast('newer')
  }

  function loadOlder(): Promise<void> {
    return isPast.value ? chat.loadPast('older') : chat.loadOlder(key)
  }

  // Before the rows change, the distance to the end is noted; afterwards it is restored if messages came in above.
  let fromEnd = 0
  let firstId: number | undefined
  watch(
    rows,
    () => {
      const box = scroller.value
      if (box) fromEnd = box.scrollHeight - box.scrollTop
      firstId = shown.value.messages[0]?.id
    },
    { flush: 'pre' },
  )
  let shownFirstId: number | undefined
  let shownPast = false
  watch(
    rows,
    () => {
      const box = scroller.value
      if (!box || !isPlaced.value) return
      // A jump between past and present has its own place.
      const isSame = shownPast === isPast.value
      shownPast = isPast.value
      if (staysAtEnd.value && isSame) box.scrollTop = box.scrollHeight
      else if (shownFirstId !== undefined && firstId !== undefined && firstId < shownFirstId) {
        box.scrollTop = box.scrollHeight - fromEnd
      }
      shownFirstId = firstId
      measure()
    },
    { flush: 'post' },
  )

  /** Puts the reader above new messages, or at the end. */
  async function place(): Promise<void> {
    await nextTick()
    const box = scroller.value
    if (!box || isPlaced.value) return
    const line = box.querySelector<HTMLElement>('[data-new]')
    box.scrollTop = box.scrollHeight
    if (line) box.scrollTop = Math.min(box.scrollTop, line.offsetTop - box.clientHeight / 4)
    isPlaced.value = true
    endId.value = chat.firstNew === null ? (roomIn(chat.state, key).messages.at(-1)?.id ?? 0) : chat.firstNew - 1
    measure()
    onScroll()
  }

  /** Shows the message that was jumped to in the middle. */
  async function goTo(id: number): Promise<void> {
    await place()
    await nextTick()
    const found = scroller.value?.querySelector<HTMLElement>(`[data-message="${id}"]`)
    found?.scrollIntoView({ block: 'center' })
    found?.focus({ preventScroll: true })
    measure()
  }
  watch(
    () => chat.target,
    (target) => target?.room === key && void goTo(target.id),
    { immediate: true, flush: 'post' },
  )
  watch(
    () => shown.value.phase,
    (phase) => phase === 'ready' && void place(),
    { immediate: true },
  )

  const isLooking = ref(false)
  function look(): void {
    isLooking.value = document.visibilityState === 'visible' && document.hasFocus()
  }
  watch(
    () => isLooking.value && staysAtEnd.value,
    (isReading) => chat.setReadingEnd(isReading),
  )

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
    chat.setReadingEnd(false)
  })

  return { isAtEnd, isPlaced, missed, toEnd, onScroll, loadOlder }
}
