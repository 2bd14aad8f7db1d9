/** The notifications of the signed-in account: list, badge and toasts. */
import { defineStore } from 'pinia'
import { computed, ref, shallowRef } from 'vue'
import { describeError } from '@/api/errors'
import * as http from '@/api/notifications'
import type { Account, Notification as Note } from '@/api/records'
import type { Subscription } from '@/realtime/subscriptions'
import { onReconnected } from '@/realtime/reconnected'
import { useRealtime } from '@/realtime/store'
import { BrowserNotifications } from './browser'
import { initialNotifications, notificationsAfter, type NotificationEvent } from './state'

const MAX_TOASTS = 3

export const useNotifications = defineStore('notifications', () => {
  const realtime = useRealtime()
  const state = shallowRef(initialNotifications)
  const toasts = shallowRef<readonly Note[]>([])
  const failure = ref(false)
  const isLoadingOlder = ref(false)
  /** Why older notifications could not be loaded. */
  const olderTrouble = ref<string | null>(null)
  const unread = computed(() => state.value.unread)
  /** Unread ones, except those of direct messages, which the chat counts. */
  const unreadElsewhere = computed(
    () => state.value.list.filter(({ type, read_at }) => type !== 'private_message' && read_at === null).length,
  )
  /** The permission for the browser's own notifications; requested on a click only. */
  const permission = ref(typeof Notification === 'undefined' ? 'denied' : Notification.permission)

  let subscription: Subscription | null = null
  let browser: BrowserNotifications | null = null
  /** False while the outcome of a request is unknown. */
  let isSure = true
  /** Whether a notification is about what the user is looking at. */
  let isSeen: (notification: Note) => boolean = () => false

  function dispatch(event: NotificationEvent): void {
    state.value = notificationsAfter(state.value, event)
  }

  function start(account: Account, seen: (notification: Note) => boolean): void {
    stop()
    isSeen = seen
    browser = new BrowserNotifications()
    subscription = realtime.follow({
      channel: `private-user.${account.id}`,
      durable: {
        NotificationCreated: ({ notification }) => created(notification),
        NotificationChanged: ({ notification }) => changed(notification),
        NotificationRead: ({ notificationId }) => wasRead(notificationId),
        NotificationsRead: ({ notificationIds, upTo }) => wereRead(notificationIds, upTo),
      },
      reload: fetchList,
    })
    void load()
  }

  function stop(): void {
    subscription?.stop()
    browser?.stop()
    subscription = browser = null
    state.value = initialNotifications
    toasts.value = []
    olderTrouble.value = null
  }

  async function fetchList(): Promise<number> {
    const page = await http.notifications()
    dispatch({ type: 'loaded', list: page.notifications, unread: page.unread, hasOlder: page.hasOlder })
    return page.eventId
  }

  async function load(): Promise<void> {
    dispatch({ type: 'loading' })
    try {
      subscription?.loaded(await fetchList())
      isSure = true
    } catch {
      dispatch({ type: 'failed' })
    }
  }

  onReconnected(() => {
    failure.value = false
    olderTrouble.value = null
    if (subscription !== null && (state.value.phase === 'failed' || !isSure)) void load()
  })

  async function loadOlder(): Promise<void> {
    const last = state.value.list.at(-1)
    if (!last || !state.value.hasOlder || isLoadingOlder.value) return
    isLoadingOlder.value = true
    try {
      const page = await http.notifications(last.id)
      dispatch({ type: 'olderLoaded', list: page.notifications, hasOlder: page.hasOlder })
      olderTrouble.value = null
    } catch (error) {
      olderTrouble.value = describeError(error)
    } finally {
      isLoadingOlder.value = false
    }
  }

  /** A notification was read, here or elsewhere. */
  function wasRead(id: number): void {
    dispatch({ type: 'read', id, at: new Date().toISOString() })
    dismiss(id)
    browser?.close(id)
  }

  /** Several were read: these, or all up to one if none is named. */
  function wereRead(ids: readonly number[], upTo: number): void {
    if (ids.length > 0) {
      ids.forEach(wasRead)
      return
    }
    for (const { id } of state.value.list) if (id <= upTo) browser?.close(id)
    toasts.value = toasts.value.filter(({ id }) => id > upTo)
    dispatch({ type: 'allRead', upTo, at: new Date().toISOString() })
  }

  function created(notification: Note): void {
    const isNew = ![...state.value.list, ...toasts.value].some(({ id }) => id === notification.id)
    dispatch({ type: 'created', notification })
    if (!isNew || notification.read_at !== null) return
    if (!isSeen(notification)) toasts.value = [...toasts.value, notification].slice(-MAX_TOASTS)
    browser?.received(notification, permission.value === 'granted')
  }

  /** What a notification is about was changed. The browser's own one keeps no text that is gone. */
  function changed(notification: Note): void {
    dispatch({ type: 'changed', notification })
    toasts.value = toasts.value.map((one) => (one.id === notification.id ? notification : one))
    browser?.close(notification.id)
  }

  function dismiss(id: number): void {
    toasts.value = toasts.value.filter((one) => one.id !== id)
  }

  /** Marks a notification as read at once; other tabs follow the server's event. */
  async function read(id: number): Promise<void> {
    dismiss(id)
    browser?.close(id)
    const known = state.value.list.find((one) => one.id === id)
    if (known && known.read_at !== null) return
    dispatch({ type: 'read', id, at: new Date().toISOString() })
    await attempt(
      () => http.readNotification(id),
      () => dispatch({ type: 'unreadAfterAll', id }),
    )
  }

  async function readAll(): Promise<void> {
    toasts.value = []
    await attempt(() => http.readAllNotifications())
  }

  async function attempt(act: () => Promise<void>, undo: () => void = () => undefined): Promise<void> {
    try {
      await act()
      failure.value = false
    } catch {
      failure.value = true
      isSure = false
      undo()
      await load()
    }
  }

  async function askPermission(): Promise<void> {
    permission.value = await Notification.requestPermission()
  }

  return {
    state,
    unread,
    unreadElsewhere,
    toasts,
    failure,
    permission,
    isLoadingOlder,
    olderTrouble,
    start,
    stop,
    load,
    loadOlder,
    read,
    readAll,
    dismiss,
    askPermission,
  }
})
