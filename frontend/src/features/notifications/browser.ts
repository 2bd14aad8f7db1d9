/** The browser's own notifications, for a page in the background, unless another tab is visible. */
import type { Notification as Note } from '@/api/records'
import { openTabChannel, type TabChannel } from '@/shared/tabs'
import { notificationText } from './words'

/** How long a background page waits for a visible one to say that it has shown the notification. */
const WAIT_MS = 400

/** A notification arrived on a page that the user is looking at. */
interface SeenHere {
  id: number
}

export class BrowserNotifications {
  private readonly seenElsewhere = new Set<number>()
  private readonly waiting = new Map<number, ReturnType<typeof setTimeout>>()
  private readonly shown = new Map<number, Notification>()
  private readonly tabs: TabChannel<SeenHere>

  constructor() {
    this.tabs = openTabChannel('notifications', ({ id }) => {
      this.seenElsewhere.add(id)
      this.close(id)
    })
  }

  /** A notification arrived here. */
  received(note: Note, isAllowed: boolean): void {
    if (!document.hidden) {
      this.tabs.post({ id: note.id })
    } else if (isAllowed && !this.seenElsewhere.has(note.id)) {
      this.waiting.set(
        note.id,
        setTimeout(() => this.show(note), WAIT_MS),
      )
    }
  }

  /** A notification was read, here or elsewhere. */
  close(id: number): void {
    clearTimeout(this.waiting.get(id))
    this.waiting.delete(id)
    this.shown.get(id)?.close()
    this.shown.delete(id)
  }

  stop(): void {
    for (const id of [...this.waiting.keys(), ...this.shown.keys()]) this.close(id)
    this.tabs.close()
  }

  private show(note: Note): void {
    this.waiting.delete(note.id)
    const { title, text, to } = notificationText(note)
    let shown: Notification
    try {
      // One tag for all tabs: the browser shows it once.
      shown = new Notification(title, { body: text, tag: `smartlink-${note.id}` })
    } catch {
      // Phones only show notifications of service workers; badge and title have to suffice.
      return
    }
    this.shown.set(note.id, shown)
    shown.onclose = () => this.shown.delete(note.id)
    shown.onclick = () => {
      shown.close()
      window.focus()
      window.location.assign(to)
    }
  }
}
