/** Keeps the keyboard focus. */
import { nextTick } from 'vue'

/** Focuses the element that `found` returns if the focused one was removed or disabled. */
export async function keepFocus(found: () => HTMLElement | null | undefined): Promise<void> {
  await nextTick()
  const { activeElement } = document
  if (activeElement === null || activeElement === document.body) found()?.focus()
}
