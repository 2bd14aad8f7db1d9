/**
 * Which message of the list has the reader's attention: the one under the pointer, pressed long, or with the focus. The
 * rows of the list come and go as it scrolls, so the list listens for all of them.
 */
import { onScopeDispose, ref } from 'vue'

const LONG_PRESS_MS = 450
/** A finger that moves further scrolls. */
const STILL_PX = 10

/** The id of the message that an event is about; null outside of messages. */
export function messageAt(event: Event): number | null {
  const row = (event.target as Element | null)?.closest<HTMLElement>('[data-message]')
  return row ? Number(row.dataset['message']) : null
}

export function usePointing(onLongPress: (id: number) => void) {
  const pointed = ref<number | null>(null)
  let pressing: ReturnType<typeof setTimeout> | undefined
  let from = { x: 0, y: 0 }

  function cancel(): void {
    clearTimeout(pressing)
  }

  function onPointerOver(event: PointerEvent): void {
    if (event.pointerType === 'mouse') pointed.value = messageAt(event)
  }

  function onPointerLeave(): void {
    pointed.value = null
  }

  function onPointerDown(event: PointerEvent): void {
    const id = messageAt(event)
    cancel()
    if (event.pointerType !== 'touch' || id === null || !event.isPrimary) return
    from = { x: event.clientX, y: event.clientY }
    pressing = setTimeout(() => onLongPress(id), LONG_PRESS_MS)
  }

  function onPointerMove({ clientX, clientY }: PointerEvent): void {
    if (Math.hypot(clientX - from.x, clientY - from.y) > STILL_PX) cancel()
  }

  /** A long press would also open the browser's own menu; a mouse may. */
  function onContextMenu(event: MouseEvent): void {
    if ((event as PointerEvent).pointerType === 'touch' && messageAt(event) !== null) event.preventDefault()
  }

  onScopeDispose(cancel)
  return {
    pointed,
    listeners: {
      pointerover: onPointerOver,
      pointerleave: onPointerLeave,
      pointerdown: onPointerDown,
      pointermove: onPointerMove,
      pointerup: cancel,
      pointercancel: cancel,
      contextmenu: onContextMenu,
    },
  }
}
