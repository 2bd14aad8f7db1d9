/** Where the keyboard goes on. */
import { nextTick } from 'vue'

/** Gives the focus to what `found` names when whatever had it went away or is out of use. */
export async function keepFocus(found: () => HTMLElement | null | undefined): Promise<void> {
  await nextTick()
  const { activeElement } = document
  if (activeElement === null || activeElement === document.body) found()?.focus()
}
