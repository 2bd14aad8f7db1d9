/** Notifications: list, count, mark as read. */
import { api, lastEventId } from './client'
import type { Notification } from './records'

export interface NotificationPage {
  notifications: Notification[]
  unread: number
  eventId: number
  hasOlder: boolean
}

const PAGE = 50

export async function notifications(before?: number): Promise<NotificationPage> {
  const query = new URLSearchParams({ limit: String(PAGE), ...(before !== undefined && { before: String(before) }) })
  const { body, headers } = await api.get<Notification[]>(`/api/notifications?${query}`)
  return {
    notifications: body,
    unread: Number(headers.get('X-Unread-Count')) || 0,
    eventId: lastEventId(headers),
    hasOlder: body.length === PAGE,
  }
}

export async function readNotification(id: number): Promise<void> {
  await api.post(`/api/notifications/${id}/read`)
}

export async function readAllNotifications(): Promise<void> {
  await api.post('/api/notifications/read')
}
