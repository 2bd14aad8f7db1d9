/** Records as the server sends them, for tests. */
import type { Message, Profile } from '@/api/records'

export const ana: Profile = { id: 1, name: 'Ana' }
export const ben: Profile = { id: 2, name: 'Ben' }
export const eve: Profile = { id: 3, name: 'Eve' }

interface Said {
  id: number
  by?: Profile
  to?: Profile
  text?: string
  at?: string
  isRead?: boolean
}

export function said({ id, by = ben, to, text = `message ${id}`, at, isRead = false }: Said): Message {
  const time = at ?? new Date(Date.UTC(2026, 4, 1, 9, 0, id)).toISOString()
  return {
    id,
    user_id: by.id,
    recipient_id: to?.id ?? null,
    message: text,
    version: 1,
    edited_at: null,
    deleted_at: null,
    is_read: isRead,
    read_at: isRead ? '2026-05-01T10:00:00Z' : null,
    delivered_at: isRead ? '2026-05-01T10:00:00Z' : null,
    created_at: time,
    updated_at: time,
    user: by,
    ...(to && { recipient: to }),
  }
}

/** A storage of its own. */
export function shelf(): Pick<Storage, 'getItem' | 'setItem' | 'removeItem'> {
  const kept = new Map<string, string>()
  return {
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, value) => void kept.set(key, value),
    removeItem: (key) => void kept.delete(key),
  }
}
