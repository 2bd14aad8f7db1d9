/** Keeps unsent messages through a reload of this tab. Idempotency keys make sending them again harmless. */
import type { Outgoing } from './state'
import type { KeyValueStorage } from './drafts'

const storageKey = (me: number) => `smartlink.outgoing.${me}`

export function loadQueue(storage: KeyValueStorage, me: number): Outgoing[] {
  try {
    const read: unknown = JSON.parse(storage.getItem(storageKey(me)) ?? '[]')
    if (!Array.isArray(read)) return []
    return (read as Outgoing[])
      .filter((one) => typeof one.key === 'string' && typeof one.text === 'string' && typeof one.room === 'string')
      .map((one) => ({ ...one, status: one.status === 'failed' ? 'failed' : 'waiting', echo: null }))
  } catch {
    return []
  }
}

export function keepQueue(storage: KeyValueStorage, me: number, queue: readonly Outgoing[]): void {
  try {
    if (queue.length === 0) storage.removeItem(storageKey(me))
    else storage.setItem(storageKey(me), JSON.stringify(queue))
  } catch {
    // Without storage, unsent messages do not survive a reload.
  }
}
