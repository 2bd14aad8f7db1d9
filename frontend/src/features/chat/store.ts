/** The chat of whoever is signed in: keeps the state, and connects it with the API, the channels and the other tabs. */
import { defineStore } from 'pinia'
import { computed, ref, shallowRef } from 'vue'
import * as http from '@/api/chat'
import { Rejected, sentence, Unreachable } from '@/api/errors'
import type { Account, Message, Profile } from '@/api/records'
import { currentSession } from '@/api/session'
import { membersAfter, type Member, type MembersEvent } from '@/features/presence/members'
import { named, tellRenamed } from '@/features/users/names'
import { whenBack } from '@/realtime/back'
import { useRealtime } from '@/realtime/store'
import { joinTabs, type Tabs } from '@/shared/tabs'
import { draftsAfter, keepDraft, loadDrafts, type Drafts } from './drafts'
import { LiveChannels } from './live'
import { pastOf, touches, withMore, type Past } from './past'
import { keepQueue, loadQueue } from './queue'
import { GENERAL, personIn, roomWith, type RoomKey } from './rooms'
import { Sender } from './sender'
import { loadSeen, keepSeen } from './seen'
import {
  chatAfter,
  initialChat,
  namedIn,
  outgoingIn,
  roomIn,
  unreadIn,
  unreadTotal,
  type ChatEvent,
  type ChatState,
} from './state'
import { asSent } from './text'
import { stillTyping, typistsAfter, type Typist } from './typing'
import { newKey } from '@/shared/keys'

const SWEEP_MS = 500
/** Several receipts at once are looked up together. */
const RECEIPTS_MS = 300

/** What tabs tell each other: what was read in General, which the server does not keep, and conversations just opened. */
type ChatNews = { type: 'seen'; me: number; room: RoomKey; upTo: number } | { type: 'opened'; me: number; person: Profile }

export const useChat = defineStore('chat', () => {
  const realtime = useRealtime()
  const state = shallowRef<ChatState>(initialChat(0))
  const members = shallowRef<readonly Member[]>([])
  const typing = shallowRef<Readonly<Partial<Record<RoomKey, readonly Typist[]>>>>({})
  const drafts = shallowRef<Drafts>({})
  const room = ref<RoomKey | null>(null)
  const firstNew = ref<number | null>(null)
  /** Whether the reader looks at the end of the open room right now. */
  const isAttending = ref(false)
  const slowedUntil = ref<number | null>(null)
  /** A piece of the open room's past that is shown instead of the present. */
  const past = shallowRef<Past | null>(null)
  /** The message that somebody went to, last. */
  const target = shallowRef<{ room: RoomKey; id: number } | null>(null)
  const wayProblem = ref<string | null>(null)
  /** What the open room is called. */
  const title = ref('Chat')

  const me = computed(() => state.value.me)
  const current = computed(() => (room.value === null ? null : roomIn(state.value, room.value)))
  const currentOutgoing = computed(() => (room.value === null ? [] : outgoingIn(state.value, room.value)))
  const unread = computed(() => unreadTotal(state.value))
  const onlineIds = computed(() => new Set(members.value.map(({ id }) => id)))

  let live: LiveChannels | null = null
  let sender: Sender | null = null
  let tabs: Tabs<ChatNews> | null = null
  let sweeping: ReturnType<typeof setInterval> | undefined
  const loading = new Map<RoomKey, Promise<void>>()
  /** Of what others wrote directly: what the server was told that it is read. */
  const toldRead = new Set<number>()
  /** Which of the ways to a message is the last one taken. */
  let way = 0
  let refreshing: ReturnType<typeof setTimeout> | undefined

  function dispatch(event: ChatEvent): void {
    if (event.type === 'messageArrived') beforeArrival(event.message)
    const before = state.value
    state.value = chatAfter(before, event)
    if (event.type === 'roomLoaded' && roomIn(before, event.room).phase !== 'ready') afterFirstLoad(event.room)
    if (state.value.outgoing !== before.outgoing) keepQueue(sessionStorage, me.value, state.value.outgoing)
    if (state.value.conversations !== before.conversations) listenToConversations()
    if (isAttending.value) markSeen()
  }

  /** Whoever wrote types no more; and the first message somebody misses gets a line above it. */
  function beforeArrival(message: { id: number; user_id: number; recipient_id: number | null; user: Profile }): void {
    const where: RoomKey =
      message.recipient_id === null
        ? GENERAL
        : roomWith(message.user_id === me.value ? message.recipient_id : message.user_id)
    hearTyping(where, { user: message.user, typing: false })
    if (where === room.value && !isAttending.value && message.user_id !== me.value) {
      if (firstUnread(where) === null) firstNew.value = message.id
    }
  }

  function hearTyping(where: RoomKey, word: { user: Profile; typing: boolean }): void {
    if (word.user.id === me.value) return
    typing.value = { ...typing.value, [where]: typistsAfter(typing.value[where] ?? [], word, Date.now()) }
  }

  function sweep(): void {
    const now = Date.now()
    members.value = membersAfter(members.value, { type: 'swept', now })
    const keys = Object.keys(typing.value) as RoomKey[]
    if (keys.some((key) => stillTyping(typing.value[key] ?? [], now) !== typing.value[key])) {
      typing.value = Object.fromEntries(keys.map((key) => [key, stillTyping(typing.value[key] ?? [], now)]))
    }
  }

  /** Somebody has another name. */
  function renamed(person: Profile): void {
    dispatch({ type: 'renamed', person })
    members.value = membersAfter(members.value, { type: 'renamed', person })
    typing.value = Object.fromEntries(
      Object.entries(typing.value).map(([key, typists]) => [key, typists?.map((one) => named(one, person))]),
    )
    const shown = past.value
    if (shown) past.value = { ...shown, messages: shown.messages.map((message) => namedIn(message, person)) }
    tellRenamed(person)
  }

  /** Starts for a person who signed in; lists loaded from now on hold the names told of up to `namesUpTo`. */
  function start(account: Account, namesUpTo: number): void {
    stop()
    state.value = initialChat(account.id)
    drafts.value = loadDrafts(localStorage, account.id)
    for (const outgoing of loadQueue(sessionStorage, account.id)) {
      state.value = chatAfter(state.value, { type: 'queued', outgoing })
    }
    state.value = chatAfter(state.value, { type: 'roomSeen', room: GENERAL, upTo: loadSeen(localStorage, account.id) })
    sender = new Sender({
      state: () => state.value,
      dispatch,
      send: (one) => http.send(personIn(one.room), one.text, one.key),
      canTry: () => navigator.onLine,
      isConnected: () => realtime.isConnected,
      slowedUntil: (time) => (slowedUntil.value = time),
    })
    tabs = joinTabs('chat', hearTab)
    sweeping = setInterval(sweep, SWEEP_MS)
    window.addEventListener('online', resume)
    live = new LiveChannels(realtime, account.id, {
      dispatch,
      typing: hearTyping,
      members: (event: MembersEvent) => (members.value = membersAfter(members.value, event)),
      directMessage: hearOfDirectMessage,
      readElsewhere: hearOfReading,
      reloadRoom: fetchRoom,
      reloadConversations: async () => {
        const eventId = await fetchConversations()
        // Receipts came on the same channel: what they said is in the messages.
        await Promise.all(loadedConversations().map(fetchRoom))
        return eventId
      },
      renamed,
      reloadNames: async () => {
        const { eventId } = await currentSession()
        await Promise.all([fetchConversations(), ...readyRooms().map(fetchRoom)])
        return eventId
      },
    }, namesUpTo)
    listenToConversations()
    void loadConversations()
    void loadRoom(GENERAL)
    sender.pump()
  }

  function stop(): void {
    live?.stop()
    live = null
    sender?.stop()
    sender = null
    tabs?.close()
    tabs = null
    clearInterval(sweeping)
    clearTimeout(refreshing)
    window.removeEventListener('online', resume)
    members.value = []
    typing.value = {}
    room.value = null
    leavePast()
    loading.clear()
    toldRead.clear()
    firstNew.value = null
    slowedUntil.value = null
    state.value = initialChat(0)
  }

  function resume(): void {
    sender?.resume()
  }

  /** The connection came or went. */
  function connectionChanged(isConnected: boolean): void {
    if (!isConnected) typing.value = {}
    else {
      resume()
      if (isAttending.value) markSeen()
    }
  }

  /** What did not load while nobody answered. */
  function loadWhatFailed(): void {
    if (live === null) return
    if (state.value.conversationsPhase === 'failed') void loadConversations()
    for (const key of Object.keys(state.value.rooms) as RoomKey[]) {
      if (roomIn(state.value, key).phase === 'failed') void loadRoom(key)
    }
  }
  whenBack(loadWhatFailed)

  function hearTab(news: ChatNews): void {
    if (news.me !== me.value) return
    if (news.type === 'seen') dispatch({ type: 'roomSeen', room: news.room, upTo: news.upTo })
    else dispatch({ type: 'conversationOpened', person: news.person })
  }

  /** Notifications tell of messages on channels that are not listened to yet. */
  function hearOfDirectMessage(person: Profile, messageId: number): void {
    const known = state.value.conversations.find(({ user }) => user.id === person.id)
    if ((known?.last_message?.id ?? 0) >= messageId) return
    clearTimeout(refreshing)
    refreshing = setTimeout(() => void loadConversations(), known ? 400 : 0)
  }

  /** Only this page knows what it has counted: the server tells what is left of it. */
  function hearOfReading(): void {
    if (!state.value.conversations.some(({ unread_count }) => unread_count > 0)) return
    clearTimeout(refreshing)
    refreshing = setTimeout(() => void loadConversations(), RECEIPTS_MS)
  }

  function listenToConversations(): void {
    for (const { user } of state.value.conversations) live?.listenTo(user.id)
  }

  const readyRooms = (): RoomKey[] =>
    (Object.keys(state.value.rooms) as RoomKey[]).filter((key) => roomIn(state.value, key).phase === 'ready')

  const loadedConversations = (): RoomKey[] => readyRooms().filter((key) => personIn(key) !== null)

  async function fetchConversations(): Promise<number> {
    const { list, eventId } = await http.conversations()
    dispatch({ type: 'conversationsLoaded', list })
    return eventId
  }

  async function loadConversations(): Promise<void> {
    dispatch({ type: 'conversationsLoading' })
    try {
      const isFirst = state.value.conversationsPhase !== 'ready'
      const eventId = await fetchConversations()
      if (isFirst && live) live.loaded(live.userChannel, eventId)
    } catch {
      dispatch({ type: 'conversationsFailed' })
    }
  }

  async function fetchRoom(key: RoomKey): Promise<number> {
    const page = await http.messages(personIn(key))
    dispatch({ type: 'roomLoaded', room: key, messages: page.messages, hasOlder: page.hasOlder })
    return page.eventId
  }

  /** Asked for again while it is under way, it is the same. */
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
      if (person !== null) live?.listenTo(person)
      const eventId = await fetchRoom(key)
      live?.loaded(live.wireName(key), eventId)
    } catch (error) {
      const isGone = error instanceof Rejected && error.status === 404
      dispatch({ type: 'roomFailed', room: key, problem: isGone ? null : sentence(error) })
    }
  }

  /** The line above what is new is drawn once; whoever comes for the first time has read all that was said before. */
  function afterFirstLoad(key: RoomKey): void {
    const { seen, messages } = roomIn(state.value, key)
    const last = messages.at(-1)
    if (key === GENERAL && seen === 0 && last) {
      state.value = chatAfter(state.value, { type: 'roomSeen', room: GENERAL, upTo: last.id })
      keepSeen(localStorage, me.value, last.id)
    }
    if (key === room.value) firstNew.value = firstUnread(key)
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

  /** Shows a message of the open room: where it stands in what is loaded, or in its own piece of the past. */
  async function reveal(key: RoomKey, id: number): Promise<void> {
    way += 1
    const current = way
    wayProblem.value = null
    target.value = null
    if (roomIn(state.value, key).phase !== 'ready') await loadRoom(key)
    if (current !== way || room.value !== key) return
    if (!roomIn(state.value, key).messages.some((one) => one.id === id)) {
      try {
        const person = personIn(key)
        const [upTo, after] = await Promise.all([http.messages(person, id + 1), http.messagesAfter(person, id)])
        if (current !== way || room.value !== key) return
        showPast(pastOf(key, [...upTo.messages, ...after.messages], upTo.hasOlder), after.isEnd)
      } catch (error) {
        if (current === way) wayProblem.value = sentence(error)
        return
      }
    } else past.value = null
    target.value = { room: key, id }
  }

  /** Once nothing lies between, the past and the present are one. */
  function showPast(shown: Past, isEnd: boolean): void {
    const present = roomIn(state.value, shown.key)
    const isWhole = touches(shown.messages, present) || (isEnd && present.phase === 'ready')
    past.value = isWhole ? null : shown
    if (isWhole) dispatch({ type: 'pastJoined', room: shown.key, messages: shown.messages, hasOlder: shown.hasOlder })
  }

  async function loadPast(side: 'older' | 'newer'): Promise<void> {
    const from = past.value
    const at = from?.messages.at(side === 'older' ? 0 : -1)
    if (!from || !at || from[side] === 'loading' || (side === 'older' && !from.hasOlder)) return
    const begun: Past = { ...from, [side]: 'loading' }
    past.value = begun
    try {
      if (side === 'older') {
        const page = await http.messages(personIn(from.key), at.id)
        if (past.value === begun) past.value = { ...withMore(begun, page.messages), hasOlder: page.hasOlder, older: 'idle' }
      } else {
        const page = await http.messagesAfter(personIn(from.key), at.id)
        if (past.value === begun) showPast({ ...withMore(begun, page.messages), newer: 'idle' }, page.isEnd)
      }
    } catch {
      if (past.value === begun) past.value = { ...begun, [side]: 'failed' }
    }
  }

  /** Back to the present. */
  function leavePast(): void {
    way += 1
    past.value = null
    target.value = null
    wayProblem.value = null
  }

  function firstUnread(key: RoomKey): number | null {
    const { messages, seen } = roomIn(state.value, key)
    const isDirect = personIn(key) !== null
    const found = messages.find(
      ({ id, user_id, is_read }) => user_id !== me.value && id > seen && !(isDirect && is_read),
    )
    return found?.id ?? null
  }

  function open(key: RoomKey | null): void {
    if (room.value === key) return
    room.value = key
    leavePast()
    isAttending.value = false
    firstNew.value = key === null ? null : firstUnread(key)
    if (key !== null && live && ['empty', 'failed'].includes(roomIn(state.value, key).phase)) void loadRoom(key)
  }

  function attend(attends: boolean): void {
    isAttending.value = attends
    if (attends) markSeen()
  }

  function markSeen(): void {
    const key = room.value
    if (key === null) return
    const { messages, seen, phase } = roomIn(state.value, key)
    if (phase !== 'ready') return
    const last = messages.at(-1)?.id ?? 0
    if (last > seen) {
      state.value = chatAfter(state.value, { type: 'trimmed', room: key })
      noteSeen(key, last)
    }
    const person = personIn(key)
    if (person !== null) tellRead(person, messages)
  }

  /** Not only what lies behind the last one seen: an answer to one's own message may overtake an older one of theirs. */
  function tellRead(person: number, messages: readonly Message[]): void {
    const news = messages.filter(({ id, user_id, is_read }) => user_id === person && !is_read && !toldRead.has(id))
    if (news.length === 0) return
    for (const { id } of news) toldRead.add(id)
    http.readAll(person).catch((error: unknown) => {
      // Where nobody answered it is said again; what was refused stays unread until the next message.
      if (error instanceof Unreachable) for (const { id } of news) toldRead.delete(id)
    })
  }

  /** Everything that waits, in every room. Raises what the server says; what it took is read. */
  async function readEverything(): Promise<void> {
    const last = roomIn(state.value, GENERAL).messages.at(-1)
    if (last) noteSeen(GENERAL, last.id)
    for (const { user, last_message, unread_count } of state.value.conversations) {
      if (unread_count === 0 || last_message === null) continue
      await http.readAll(user.id)
      noteSeen(roomWith(user.id), last_message.id)
    }
    firstNew.value = null
  }

  function noteSeen(key: RoomKey, upTo: number): void {
    state.value = chatAfter(state.value, { type: 'roomSeen', room: key, upTo })
    tabs?.tell({ type: 'seen', me: me.value, room: key, upTo })
    if (key === GENERAL) keepSeen(localStorage, me.value, upTo)
  }

  function send(text: string): void {
    const key = room.value
    if (key === null) return
    firstNew.value = null
    dispatch({
      type: 'queued',
      outgoing: {
        key: newKey(),
        room: key,
        text: asSent(text),
        status: 'waiting',
        problem: null,
        tries: 0,
        made_at: new Date().toISOString(),
        echo: null,
      },
    })
    sender?.pump()
  }

  function retry(key: string): void {
    dispatch({ type: 'retried', key })
    sender?.pump()
  }

  function discard(key: string): void {
    dispatch({ type: 'discarded', key })
  }

  function draft(writer: number, key: RoomKey, text: string): void {
    if (writer === me.value) drafts.value = draftsAfter(drafts.value, key, text)
    keepDraft(localStorage, writer, key, text)
  }

  function sayTyping(key: RoomKey, isTyping: boolean): void {
    // Said once and not again: the next key says it anew, and an end that got lost runs out by itself.
    if (live !== null && realtime.isConnected) http.sayTyping(personIn(key), isTyping).catch(() => undefined)
  }

  function openWith(person: Profile): void {
    dispatch({ type: 'conversationOpened', person: { id: person.id, name: person.name } })
    tabs?.tell({ type: 'opened', me: me.value, person: { id: person.id, name: person.name } })
  }

  /** What is known of a person: nobody has to ask for a name that was heard before. */
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

  return {
    state, me, room, current, currentOutgoing, members, onlineIds, typing, drafts, firstNew, isAttending, unread,
    slowedUntil, title, past, target, wayProblem, reveal, loadPast, leavePast, readEverything, start, stop, open, openWith, attend, send, retry, discard, draft, sayTyping, loadRoom, loadOlder,
    loadConversations, connectionChanged, person, unreadOf,
  }
})
