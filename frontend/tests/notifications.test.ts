/** Old notifications plus the events that followed are the ones fetched again. */
import { describe, expect, it } from 'vitest'
import type { Notification } from '@/api/records'
import {
  initialNotifications,
  notificationsAfter,
  type NotificationEvent,
  type NotificationState,
} from '@/features/notifications/state'
import { notificationText } from '@/features/notifications/words'

const at = '2026-01-01T00:00:00Z'
const one = (id: number, read_at: string | null = null): Notification => ({
  id,
  type: 'deposit',
  data: { transaction_id: 1, amount: '1.00', currency: 'EUR', balance: '1.00' },
  read_at,
  created_at: at,
})
const after = (state: NotificationState, ...events: NotificationEvent[]) => events.reduce(notificationsAfter, state)
const loaded = (list: Notification[]): NotificationEvent => ({
  type: 'loaded',
  list,
  unread: list.filter(({ read_at }) => read_at === null).length,
  hasOlder: false,
})

describe('notifications', () => {
  it('that came and were read are the ones fetched again', () => {
    const lived = after(
      initialNotifications,
      loaded([one(2), one(1)]),
      { type: 'created', notification: one(3) },
      { type: 'created', notification: one(3) },
      { type: 'read', id: 1, at },
      { type: 'read', id: 1, at },
    )

    expect(lived).toEqual(after(initialNotifications, loaded([one(3), one(2), one(1, at)])))
  })

  it('are as before when reading one did not go through', () => {
    const before = after(initialNotifications, loaded([one(2), one(1, at)]))

    expect(after(before, { type: 'read', id: 2, at }, { type: 'unreadAfterAll', id: 2 })).toEqual(before)
  })

  it('count one that was read though it is not loaded', () => {
    const lived = after(
      initialNotifications,
      { type: 'loaded', list: [one(9)], unread: 2, hasOlder: true },
      { type: 'read', id: 1, at },
    )

    expect(lived.unread).toBe(1)
  })

  it('keep their order and show nothing twice when older ones come', () => {
    const lived = after(
      initialNotifications,
      { type: 'loaded', list: [one(9), one(8)], unread: 4, hasOlder: true },
      {
        type: 'olderLoaded',
        list: [one(8), one(7)],
        hasOlder: false,
      },
    )

    expect(lived.list.map(({ id }) => id)).toEqual([9, 8, 7])
  })

  const campaign = { campaign_id: 3, name: 'Spring', by: { id: 1, name: 'Admin' } }
  it.each<[to: string, about: object]>([
    ['/direct/7', { type: 'private_message', data: { message_id: 1, sender: { id: 7, name: 'Ana' }, excerpt: 'Hi' } }],
    ['/campaigns', { type: 'campaign_changed', data: { ...campaign, action: 'deleted' } }],
    ['/campaigns/3', { type: 'campaign_changed', data: { ...campaign, action: 'activated' } }],
    ['/wallet', { type: 'deposit', data: one(1).data }],
    ['/notifications', { type: 'something new', data: {} }],
  ])('lead to what they are about: %s', (to, about) => {
    expect(notificationText({ ...one(1), ...about } as Notification).to).toBe(to)
  })

  it('about a deleted message say so', () => {
    const about = { message_id: 3, sender: { id: 2, name: 'Ben' }, excerpt: 'A secret' }
    const note: Notification = { id: 1, type: 'private_message', data: about, read_at: null, created_at: at }
    const gone: Notification = { ...note, data: { ...about, excerpt: '' } }

    const lived = after(initialNotifications, loaded([note]), { type: 'changed', notification: gone })

    expect(lived).toEqual(after(initialNotifications, loaded([gone])))
    expect(notificationText(gone).text).toBe('This message was deleted.')
  })
})
