/**
 * Which message of the list has the reader's attention: the one whose menu is open, under the pointer, or with the focus.
 * Arrow keys move the focus through the messages, and other keys act on the one that has it. The rows of the list come
 * and go as it scrolls, so the list listens for all of them.
 */
import { computed, nextTick, onBeforeUnmount, onMounted, ref, watch } from 'vue'
import type { Message } from '@/api/records'
import { messageAt, usePointing } from './pointing'
import { useChat } from './store'
import type { TimelineRow } from './timeline'

export interface AttentionPorts {
  scroller: HTMLElement
  content: HTMLElement
  messages: readonly Message[]
  rows: readonly TimelineRow[]
  bringIntoView: (index: number) => Promise<void>
  lastInView: () => number | null
}

export interface Answers {
  /** Opens the menu of a message. False if nothing can be done with it. */
  open(message: Message, beside: HTMLElement | null): boolean
  /** Does what a key stands for. False if it stands for nothing. */
  press(event: KeyboardEvent, message: Message): boolean
}

const STEPS: Record<string, number> = { ArrowUp: -1, ArrowDown: 1 }

export function useAttention(ports: AttentionPorts, answers: Answers) {
  const chat = useChat()
  const { pointed, listeners } = usePointing((id) => openMenu(id, null))
  const focused = ref<number | null>(null)
  const withMenu = ref<number | null>(null)
  const active = computed(() => withMenu.value ?? pointed.value ?? focused.value)

  const indexOf = (id: number | null) => ports.rows.findIndex((row) => row.kind === 'message' && row.message.id === id)
  const messageOf = (id: number) => ports.messages.find((one) => one.id === id)
  const rowOf = (id: number | null) => ports.scroller.querySelector<HTMLElement>(`[data-message="${id}"]`)

  /** The row with the focus stays, even if it is scrolled out of view: the focus would be lost with it. */
  const kept = computed(() => {
    const index = focused.value === null ? -1 : indexOf(focused.value)
    return index < 0 ? [] : [index]
  })

  function openMenu(id: number, beside: HTMLElement | null): void {
    const message = messageOf(id)
    if (message && answers.open(message, beside)) withMenu.value = id
  }

  function onMenuClosed(): void {
    withMenu.value = null
  }

  function onFocusIn(event: FocusEvent): void {
    focused.value = messageAt(event)
  }

  function onFocusOut(event: FocusEvent): void {
    if (!ports.content.contains(event.relatedTarget as Node | null)) focused.value = null
  }

  function onKeydown(event: KeyboardEvent): void {
    const id = messageAt(event)
    const isOnRow = id !== null && event.target === rowOf(id)
    if (event.target !== ports.scroller && !isOnRow) return
    const hasModifier = event.ctrlKey || event.metaKey || event.altKey || event.shiftKey
    const step = STEPS[event.key]
    if (step !== undefined && !hasModifier) void moveTo(id, step)
    else if (id === null || !act(event, id)) return
    event.preventDefault()
  }

  /** Opens the menu of a message, or does what a key stands for. */
  function act(event: KeyboardEvent, id: number): boolean {
    if (event.key === 'Enter' || event.key === 'ContextMenu' || (event.key === 'F10' && event.shiftKey)) {
      openMenu(id, rowOf(id)?.querySelector<HTMLElement>('.bubble') ?? null)
      return true
    }
    const message = messageOf(id)
    return message !== undefined && answers.press(event, message)
  }

  /** Focuses the next message up or down; from the list itself, the last one in view. */
  async function moveTo(from: number | null, step: number): Promise<void> {
    const ids = ports.rows.flatMap((row) => (row.kind === 'message' ? [row.message.id] : []))
    const at = from === null ? ids.indexOf(ports.lastInView() ?? -1) : ids.indexOf(from) + step
    const id = ids[at]
    if (id === undefined) return
    focused.value = id
    if (!rowOf(id)) await ports.bringIntoView(indexOf(id))
    rowOf(id)?.focus()
  }

  /** A change may remove the button with the focus: the focus goes to its message. */
  watch(
    () => chat.lastChange,
    async (change) => {
      const had = document.activeElement
      await nextTick()
      if (change && had && !had.isConnected) rowOf(change.id)?.focus({ preventScroll: true })
    },
  )

  const ended = new AbortController()
  onMounted(() => {
    const { signal } = ended
    for (const [name, listen] of Object.entries({ ...listeners, focusin: onFocusIn, focusout: onFocusOut })) {
      ports.content.addEventListener(name, listen as EventListener, { signal })
    }
    ports.scroller.addEventListener('keydown', onKeydown, { signal })
  })
  onBeforeUnmount(() => ended.abort())

  return { active, kept, openMenu, onMenuClosed }
}
