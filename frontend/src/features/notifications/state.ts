/** The list of notifications. Pure: an old state and an event give the new one. */
import type { Notification } from '@/api/records'

export interface NotificationState {
  phase: 'empty' | 'loading' | 'ready' | 'failed'
  /** Newest first. */
  list: readonly Notification[]
  /** Of all notifications, including those not loaded. */
  unread: number
  hasOlder: boolean
}

export type NotificationEvent =
  | { type: 'loading' }
  | { type: 'failed' }
  | { type: 'loaded'; list: readonly Notification[]; unread: number; hasOlder: boolean }
  | { type: 'olderLoaded'; list: readonly Notification[]; hasOlder: boolean }
  | { type: 'created'; notification: Notification }
  /** What it is about was changed. */
  | { type: 'changed'; notification: Notification }
  | { type: 'read'; id: number; at: string }
  /** All up to this one were read. */
  | { type: 'allRead'; upTo: number; at: string }
  /** It was marked here, but the server did not accept that. */
  | { type: 'unreadAfterAll'; id: number }

export const initialNotifications: NotificationState = { phase: 'empty', list: [], unread: 0, hasOlder: false }

export function notificationsAfter(state: NotificationState, event: NotificationEvent): NotificationState {
  switch (event.type) {
    case 'loading':
      return { ...state, phase: state.phase === 'ready' ? 'ready' : 'loading' }
    case 'failed':
      return { ...state, phase: state.phase === 'ready' ? 'ready' : 'failed' }
    case 'loaded':
      return { phase: 'ready', list: event.list, unread: event.unread, hasOlder: event.hasOlder }
    case 'olderLoaded': {
      const known = new Set(state.list.map(({ id }) => id))
      return {
        ...state,
        list: [...state.list, ...event.list.filter(({ id }) => !known.has(id))],
        hasOlder: event.hasOlder,
      }
    }
    case 'created': {
      const { notification } = event
      if (state.list.some(({ id }) => id === notification.id)) return state
      const list = [notification, ...state.list].sort((one, other) => other.id - one.id)
      return { ...state, list, unread: state.unread + (notification.read_at === null ? 1 : 0) }
    }
    case 'changed': {
      const { id, data } = event.notification
      const list = state.list.map((one) => (one.id === id ? ({ ...one, data } as Notification) : one))
      return { ...state, list }
    }
    case 'read': {
      const known = state.list.find(({ id }) => id === event.id)
      if (known && known.read_at !== null) return state
      return {
        ...state,
        unread: Math.max(0, state.unread - 1),
        list: state.list.map((one) => (one.id === event.id ? { ...one, read_at: event.at } : one)),
      }
    }
    case 'allRead': {
      const list = state.list.map((one) =>
        one.id <= event.upTo && one.read_at === null ? { ...one, read_at: event.at } : one,
      )
      return { ...state, list, unread: list.filter(({ id, read_at }) => id > event.upTo && read_at === null).length }
    }
    case 'unreadAfterAll':
      return {
        ...state,
        unread: state.unread + 1,
        list: state.list.map((one) => (one.id === event.id ? { ...one, read_at: null } : one)),
      }
  }
}
