/** Loads conversations and rooms, and follows the channel of each. */
import * as http from '@/api/chat'
import { RequestFailed, describeError } from '@/api/errors'
import type { Profile } from '@/api/records'
import { currentSession } from '@/api/session'
import type { ChatCore } from './core'
import type { LiveChannels } from './live'
import { personIn, type RoomKey } from './rooms'
import { roomIn } from './state'

/** Messages that arrive together are answered by one request. */
const MESSAGES_MS = 400

export function useLoading({ state, dispatch }: ChatCore, live: () => LiveChannels | null) {
  const loading = new Map<RoomKey, Promise<void>>()
  let refreshing: ReturnType<typeof setTimeout> | undefined

  const rooms = (): RoomKey[] => Object.keys(state.value.rooms) as RoomKey[]
  const readyRooms = (): RoomKey[] => rooms().filter((key) => roomIn(state.value, key).phase === 'ready')

  function reset(): void {
    clearTimeout(refreshing)
    loading.clear()
  }

  async function fetchConversations(): Promise<number> {
    const [{ list, eventId }] = await Promise.all([http.conversations(), fetchUnread()])
    dispatch({ type: 'conversationsLoaded', list })
    return eventId
  }

  async function fetchUnread(): Promise<void> {
    const asked = state.value.unread
    dispatch({ type: 'unreadLoaded', list: await http.unread(), asked })
  }

  async function fetchRoom(key: RoomKey): Promise<number> {
    const page = await http.messages(personIn(key))
    dispatch({ type: 'roomLoaded', room: key, messages: page.messages, hasOlder: page.hasOlder })
    return page.eventId
  }

  /** Loads a room again after events of it were missed for good. */
  async function reloadRoom(key: RoomKey): Promise<number> {
    const [eventId] = await Promise.all([fetchRoom(key), fetchUnread()])
    return eventId
  }

  /** Read receipts arrive on the same channel as conversations; the messages contain their effect. */
  async function reloadConversations(): Promise<number> {
    const eventId = await fetchConversations()
    await Promise.all(
      readyRooms()
        .filter((key) => personIn(key) !== null)
        .map(fetchRoom),
    )
    return eventId
  }

  /** Everything that shows names. */
  async function reloadNames(): Promise<number> {
    const { eventId } = await currentSession()
    await Promise.all([fetchConversations(), ...readyRooms().map(fetchRoom)])
    return eventId
  }

  async function loadConversations(): Promise<void> {
    dispatch({ type: 'conversationsLoading' })
    try {
      const isFirst = state.value.conversationsPhase !== 'ready'
      const eventId = await fetchConversations()
      const channels = live()
      if (isFirst && channels) channels.loaded(channels.userChannel, eventId)
    } catch {
      dispatch({ type: 'conversationsFailed' })
    }
  }

  /** Loads a room; a call while it is loading joins the one under way. */
  function loadRoom(key: RoomKey): Promise<void> {
    const already = loading.get(key)
    if (already) return already
    const begun = loadRoomNow(key).finally(() => loading.delete(key))
    loading.set(key, begun)
    return begun
  }

  async function loadRoomNow(key: RoomKey): Promise<void> {
    dispatch({ type: 'roomLoading', room: key })
    try {
      const person = personIn(key)
      if (person !== null) live()?.listenTo(person)
      const eventId = await fetchRoom(key)
      const channels = live()
      channels?.loaded(channels.wireName(key), eventId)
    } catch (error) {
      const isGone = error instanceof RequestFailed && error.status === 404
      dispatch({ type: 'roomFailed', room: key, problem: isGone ? null : describeError(error) })
    }
  }

  async function loadOlder(key: RoomKey): Promise<void> {
    const { messages, hasOlder, older, phase } = roomIn(state.value, key)
    const first = messages[0]
    if (!first || !hasOlder || older === 'loading' || phase !== 'ready') return
    dispatch({ type: 'olderLoading', room: key })
    try {
      const page = await http.messages(personIn(key), first.id)
      dispatch({ type: 'olderLoaded', room: key, messages: page.messages, hasOlder: page.hasOlder })
    } catch {
      dispatch({ type: 'olderFailed', room: key })
    }
  }

  /** Loads again what failed while the server was unreachable. */
  function loadFailed(): void {
    if (live() === null) return
    if (state.value.conversationsPhase === 'failed') void loadConversations()
    for (const key of rooms()) if (roomIn(state.value, key).phase === 'failed') void loadRoom(key)
  }

  function refreshIn(delayMs: number): void {
    clearTimeout(refreshing)
    refreshing = setTimeout(() => void loadConversations(), delayMs)
  }

  /** A notification announces a message on a channel that may not be followed yet. */
  function directMessage(person: Profile, messageId: number): void {
    const known = state.value.conversations.find(({ user }) => user.id === person.id)
    if ((known?.last_message?.id ?? 0) < messageId) refreshIn(known ? MESSAGES_MS : 0)
  }

  return {
    reset,
    reloadRoom,
    reloadConversations,
    reloadNames,
    loadConversations,
    loadRoom,
    loadOlder,
    loadFailed,
    directMessage,
  }
}
