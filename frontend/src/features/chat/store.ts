/** The chat of the signed-in account: joins its parts, and connects them to the channels and the other tabs. */
import { defineStore } from 'pinia'
import { computed, ref, shallowRef } from 'vue'
import type { Account, Message, Profile } from '@/api/records'
import { membersAfter, type Member, type MembersEvent } from '@/features/presence/members'
import { announceRename } from '@/features/users/names'
import { onReconnected } from '@/realtime/reconnected'
import { useRealtime } from '@/realtime/store'
import { openTabChannel, type TabChannel } from '@/shared/tabs'
import type { ChatCore, ChatTabMessage } from './core'
import { useEditing } from './editing'
import { useHistory } from './history'
import { LiveChannels } from './live'
import { useLoading } from './loading'
import { useReading } from './reading'
import { GENERAL, roomOf, roomWith, type RoomKey } from './rooms'
import { useSending } from './sending'
import {
  chatAfter,
  initialChat,
  MAX_KEPT,
  roomIn,
  unreadIn,
  unreadTotal,
  type ChatEvent,
  type ChatState,
} from './state'
import { useTypists } from './typists'

const SWEEP_MS = 500

export const useChat = defineStore('chat', () => {
  const realtime = useRealtime()
  const state = shallowRef<ChatState>(initialChat(0))
  const members = shallowRef<readonly Member[]>([])
  const room = ref<RoomKey | null>(null)
  /** The name of the open room. */
  const title = ref('Chat')
  /** Whether it is known where reading begins in the open room. */
  const hasBegun = ref(false)
  let knowsUnread = false
  /** The message that was edited or deleted last. */
  const lastChange = shallowRef<Message | null>(null)

  const me = computed(() => state.value.me)
  const unread = computed(() => unreadTotal(state.value))
  const onlineIds = computed(() => new Set(members.value.map(({ id }) => id)))

  /** Whether the reader is at the end of the open room. */
  let isAtEnd = true
  let live: LiveChannels | null = null
  let tabs: TabChannel<ChatTabMessage> | null = null
  let sweeping: ReturnType<typeof setInterval> | undefined

  const core: ChatCore = { state, room, me, apply, dispatch, post: (message) => tabs?.post(message) }
  const loading = useLoading(core, () => live)
  const history = useHistory(core, loading.loadRoom)
  const reading = useReading(core)
  const editing = useEditing(core)
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
    if (event.type === 'messageArrived') keepShort(roomOf(event.message, me.value))
    if (event.type === 'messageChanged') changed(event.message)
    if (event.type === 'unreadLoaded' || event.type === 'conversationsFailed') knowsUnread = true
    if (state.value.outgoing !== before.outgoing) sending.keep()
    if (state.value.conversations !== before.conversations) listenToConversations()
    if (hasBegun.value) reading.markSeen()
    else void beginReading()
  }

  /** Forgets messages that can be fetched again. A reader further up keeps theirs, apart from what arrives. */
  function keepShort(key: RoomKey): void {
    if (roomIn(state.value, key).messages.length <= MAX_KEPT) return
    if (key === room.value && !isAtEnd && history.past.value === null) history.detach(key)
    apply({ type: 'trimmed', room: key })
  }

  /** Once the open room and what is unread are known: opens it at the first unread message. */
  async function beginReading(): Promise<void> {
    const key = room.value
    if (key === null || hasBegun.value || !knowsUnread || roomIn(state.value, key).phase !== 'ready') return
    hasBegun.value = true
    const first = reading.begin(key)
    const isLoaded = first === null || roomIn(state.value, key).messages.some(({ id }) => id === first)
    if (!isLoaded && !(await history.openAt(key, first))) reading.hold()
  }

  /** Starts for an account that signed in. Lists loaded from now on contain all renames up to event `namesUpTo`. */
  function start(account: Account, namesUpTo: number): void {
    stop()
    state.value = initialChat(account.id)
    sending.start()
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
        reloadRoom: loading.reloadRoom,
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
    hasBegun.value = knowsUnread = false
    history.leavePast()
    editing.stopEditing()
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
    if (message.type === 'read') dispatch({ type: 'roomRead', room: message.room, upTo: message.upTo })
    else dispatch({ type: 'conversationOpened', person: message.person })
  }

  function renamed(person: Profile): void {
    dispatch({ type: 'renamed', person })
    members.value = membersAfter(members.value, { type: 'renamed', person })
    typists.renamed(person)
    history.renamed(person)
    announceRename(person)
  }

  function changed(message: Message): void {
    history.changed(message)
    editing.changed(message)
    lastChange.value = message
  }

  function open(key: RoomKey | null): void {
    if (room.value === key) return
    editing.stopEditing()
    room.value = key
    history.leavePast()
    reading.leave()
    hasBegun.value = false
    isAtEnd = true
    if (key !== null) keepShort(key)
    void beginReading()
    const isMissing = key !== null && ['empty', 'failed'].includes(roomIn(state.value, key).phase)
    if (isMissing && live) void loading.loadRoom(key)
  }

  /** Adds a conversation to the list, here and in the other tabs. */
  function openWith({ id, name }: Profile): void {
    dispatch({ type: 'conversationOpened', person: { id, name } })
    tabs?.post({ type: 'opened', me: me.value, person: { id, name } })
  }

  /** Where the reader of the open room is: up to which message they look, null while they do not, and at which end. */
  function setSeen(upTo: number | null, atEnd: boolean): void {
    isAtEnd = atEnd
    reading.setSeen(upTo)
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
  const { past, target, jumpProblem, isOpening, reveal, loadPast, leavePast } = history
  const { firstNew, markUnread, markAllRead } = reading
  const { isChangeable, edit, editLast, stopEditing, saveEdit, remove } = editing
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
    isOpening,
    reveal,
    loadPast,
    leavePast,
    firstNew,
    hasBegun,
    setSeen,
    leaving: () => reading.report(true),
    markUnread,
    markAllRead,
    lastChange,
    editing: editing.editing,
    isChangeable,
    edit,
    editLast,
    stopEditing,
    saveEdit,
    remove,
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
