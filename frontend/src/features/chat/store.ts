/** The chat of the signed-in account: joins its parts, and connects them to the channels and the other tabs. */
import { defineStore } from 'pinia'
import { computed, ref, shallowRef } from 'vue'
import type { Account, Profile } from '@/api/records'
import { membersAfter, type Member, type MembersEvent } from '@/features/presence/members'
import { announceRename } from '@/features/users/names'
import { onReconnected } from '@/realtime/reconnected'
import { useRealtime } from '@/realtime/store'
import { openTabChannel, type TabChannel } from '@/shared/tabs'
import type { ChatCore, ChatTabMessage } from './core'
import { useHistory } from './history'
import { LiveChannels } from './live'
import { useLoading } from './loading'
import { useReading } from './reading'
import { GENERAL, roomOf, roomWith, type RoomKey } from './rooms'
import { loadSeen } from './seen'
import { useSending } from './sending'
import { chatAfter, initialChat, roomIn, unreadIn, unreadTotal, type ChatEvent, type ChatState } from './state'
import { useTypists } from './typists'

const SWEEP_MS = 500

export const useChat = defineStore('chat', () => {
  const realtime = useRealtime()
  const state = shallowRef<ChatState>(initialChat(0))
  const members = shallowRef<readonly Member[]>([])
  const room = ref<RoomKey | null>(null)
  /** The name of the open room. */
  const title = ref('Chat')

  const me = computed(() => state.value.me)
  const unread = computed(() => unreadTotal(state.value))
  const onlineIds = computed(() => new Set(members.value.map(({ id }) => id)))

  let live: LiveChannels | null = null
  let tabs: TabChannel<ChatTabMessage> | null = null
  let sweeping: ReturnType<typeof setInterval> | undefined

  const core: ChatCore = { state, room, me, apply, dispatch, post: (message) => tabs?.post(message) }
  const loading = useLoading(core, () => live)
  const history = useHistory(core, loading.loadRoom)
  const reading = useReading(core)
  const typists = useTypists(core, () => live !== null && realtime.isConnected)
  const sending = useSending(core, () => realtime.isConnected)
  onReconnected(loading.loadFailed)

  function apply(event: ChatEvent): void {
    state.value = chatAfter(state.value, event)
  }

  function dispatch(event: ChatEvent): void {
    if (event.type === 'messageArrived') {
      const key = roomOf(event.message, me.value)
      typists.receive(key, { user: event.message.user, typing: false })
      reading.arriving(key, event.message)
    }
    const before = state.value
    apply(event)
    if (event.type === 'roomLoaded' && roomIn(before, event.room).phase !== 'ready') reading.loaded(event.room)
    if (state.value.outgoing !== before.outgoing) sending.keep()
    if (state.value.conversations !== before.conversations) listenToConversations()
    reading.markSeen()
  }

  /** Starts for an account that signed in. Lists loaded from now on contain all renames up to event `namesUpTo`. */
  function start(account: Account, namesUpTo: number): void {
    stop()
    state.value = initialChat(account.id)
    sending.start()
    apply({ type: 'roomSeen', room: GENERAL, upTo: loadSeen(localStorage, account.id) })
    tabs = openTabChannel('chat', onTabMessage)
    sweeping = setInterval(sweep, SWEEP_MS)
    live = new LiveChannels(
      realtime,
      account.id,
      {
        dispatch,
        typing: typists.receive,
        members: (event: MembersEvent) => (members.value = membersAfter(members.value, event)),
        directMessage: loading.directMessage,
        readElsewhere: loading.readElsewhere,
        reloadRoom: loading.fetchRoom,
        reloadConversations: loading.reloadConversations,
        renamed,
        reloadNames: loading.reloadNames,
      },
      namesUpTo,
    )
    listenToConversations()
    void loading.loadConversations()
    void loading.loadRoom(GENERAL)
    sending.pump()
  }

  function stop(): void {
    live?.stop()
    live = null
    sending.stop()
    tabs?.close()
    tabs = null
    clearInterval(sweeping)
    members.value = []
    typists.clear()
    room.value = null
    history.leavePast()
    loading.reset()
    reading.reset()
    state.value = initialChat(0)
  }

  function sweep(): void {
    const now = Date.now()
    members.value = membersAfter(members.value, { type: 'swept', now })
    typists.sweep(now)
  }

  function listenToConversations(): void {
    for (const { user } of state.value.conversations) live?.listenTo(user.id)
  }

  function connectionChanged(isConnected: boolean): void {
    if (!isConnected) typists.clear()
    else {
      sending.resume()
      reading.markSeen()
    }
  }

  function onTabMessage(message: ChatTabMessage): void {
    if (message.me !== me.value) return
    if (message.type === 'seen') dispatch({ type: 'roomSeen', room: message.room, upTo: message.upTo })
    else dispatch({ type: 'conversationOpened', person: message.person })
  }

  function renamed(person: Profile): void {
    dispatch({ type: 'renamed', person })
    members.value = membersAfter(members.value, { type: 'renamed', person })
    typists.renamed(person)
    history.renamed(person)
    announceRename(person)
  }

  function open(key: RoomKey | null): void {
    if (room.value === key) return
    room.value = key
    history.leavePast()
    reading.opened(key)
    const isMissing = key !== null && ['empty', 'failed'].includes(roomIn(state.value, key).phase)
    if (isMissing && live) void loading.loadRoom(key)
  }

  /** Adds a conversation to the list, here and in the other tabs. */
  function openWith({ id, name }: Profile): void {
    dispatch({ type: 'conversationOpened', person: { id, name } })
    tabs?.post({ type: 'opened', me: me.value, person: { id, name } })
  }

  function send(text: string): void {
    if (room.value !== null) reading.firstNew.value = null
    sending.send(text)
  }

  /** A person whose name was seen before; null for others. */
  function person(id: number): Profile | null {
    const conversation = state.value.conversations.find(({ user }) => user.id === id)
    if (conversation) return conversation.user
    const online = members.value.find((one) => one.id === id)
    if (online) return { id, name: online.name }
    const direct = roomIn(state.value, roomWith(id)).messages[0]
    if (direct) return direct.user_id === id ? direct.user : (direct.recipient ?? null)
    return roomIn(state.value, GENERAL).messages.find(({ user_id }) => user_id === id)?.user ?? null
  }

  const unreadOf = (key: RoomKey): number => unreadIn(state.value, key)

  const { loadConversations, loadRoom, loadOlder } = loading
  const { past, target, jumpProblem, reveal, loadPast, leavePast } = history
  const { firstNew, setReadingEnd, markAllRead } = reading
  const { typing, sendTyping } = typists
  const { drafts, slowedUntil, retry, discard, draft } = sending
  return {
    state,
    me,
    title,
    members,
    onlineIds,
    unread,
    unreadOf,
    person,
    start,
    stop,
    connectionChanged,
    open,
    openWith,
    loadConversations,
    loadRoom,
    loadOlder,
    past,
    target,
    jumpProblem,
    reveal,
    loadPast,
    leavePast,
    firstNew,
    setReadingEnd,
    markAllRead,
    typing,
    sendTyping,
    drafts,
    slowedUntil,
    send,
    retry,
    discard,
    draft,
  }
})
