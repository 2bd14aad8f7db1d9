/**
 * The state of the chat and how events change it. Pure: no clock, no network, no Vue.
 *
 * Invariant: an old state plus the events since then equals the state fetched again.
 * Messages are kept once per id and ordered by id, so duplicates and late arrivals change nothing.
 */
import type { Conversation, Message, Profile, RoomUnread } from '@/api/records'
import { named } from '@/features/users/names'
import { remembered, upToDate, withContent } from './content'
import { roomOf, type RoomKey } from './rooms'
import {
  NOTHING_UNREAD,
  roomOfUnread,
  unreadAfterAnswer,
  unreadAfterArrival,
  unreadAfterReading,
  unreadRoomsAfterList,
  type UnreadRooms,
} from './unread'

/** A message on its way to the server. */
export interface Outgoing {
  /** Also the idempotency key: a retry never sends twice. */
  key: string
  room: RoomKey
  text: string
  /** `waiting`: queued; `sending`: a request is under way; `failed`: the user decides. */
  status: 'waiting' | 'sending' | 'failed'
  problem: string | null
  tries: number
  made_at: string
  /** The id of the message if its event arrived before the response: it is shown instead. */
  echo: number | null
}

export interface Room {
  /** `gone`: there is no such person. */
  phase: 'empty' | 'loading' | 'ready' | 'failed' | 'gone'
  problem: string | null
  messages: readonly Message[]
  hasOlder: boolean
  older: 'idle' | 'loading' | 'failed'
  /** The outgoing key of each sent message, so that its row stays the same. */
  rowKeys: Readonly<Record<number, string>>
}

export interface ChatState {
  me: number
  rooms: Readonly<Partial<Record<RoomKey, Room>>>
  /** Newest first. */
  conversations: readonly Conversation[]
  conversationsPhase: 'empty' | 'loading' | 'ready' | 'failed'
  unread: UnreadRooms
  outgoing: readonly Outgoing[]
  /** Messages whose text changed lately. */
  changes: readonly Message[]
}

export type ChatEvent =
  | { type: 'roomLoading'; room: RoomKey }
  /** A null problem means that there is no such room. */
  | { type: 'roomFailed'; room: RoomKey; problem: string | null }
  | { type: 'roomLoaded'; room: RoomKey; messages: readonly Message[]; hasOlder: boolean }
  | { type: 'olderLoading'; room: RoomKey }
  | { type: 'olderFailed'; room: RoomKey }
  | { type: 'olderLoaded'; room: RoomKey; messages: readonly Message[]; hasOlder: boolean }
  | { type: 'pastJoined'; room: RoomKey; messages: readonly Message[]; hasOlder: boolean }
  | { type: 'conversationsLoading' }
  | { type: 'conversationsFailed' }
  | { type: 'conversationsLoaded'; list: readonly Conversation[] }
  | { type: 'conversationOpened'; person: Profile }
  | { type: 'renamed'; person: Profile }
  | { type: 'messageArrived'; message: Message }
  /** Its author edited or deleted it. */
  | { type: 'messageChanged'; message: Message }
  | { type: 'messageWasDelivered'; message: Message }
  | { type: 'messageWasRead'; message: Message }
  /** `asked`: what was known when the list was asked for. */
  | { type: 'unreadLoaded'; list: readonly RoomUnread[]; asked: UnreadRooms }
  | { type: 'unreadChanged'; room: RoomUnread }
  | { type: 'roomRead'; room: RoomKey; upTo: number }
  | { type: 'trimmed'; room: RoomKey }
  | { type: 'queued'; outgoing: Outgoing }
  | { type: 'sending'; key: string }
  | { type: 'putBack'; key: string }
  | { type: 'sendFailed'; key: string; problem: string }
  | { type: 'sent'; key: string; message: Message }
  | { type: 'retried'; key: string }
  | { type: 'discarded'; key: string }

/** The most messages a room keeps in memory; older ones are fetched again on demand. */
export const MAX_KEPT = 400
const KEPT_AFTER_TRIM = 200

export const EMPTY_ROOM: Room = {
  phase: 'empty',
  problem: null,
  messages: [],
  hasOlder: true,
  older: 'idle',
  rowKeys: {},
}

export function initialChat(me: number): ChatState {
  return { me, rooms: {}, conversations: [], conversationsPhase: 'empty', unread: {}, outgoing: [], changes: [] }
}

export function roomIn(state: ChatState, room: RoomKey): Room {
  return state.rooms[room] ?? EMPTY_ROOM
}

/** The state after an event. Lists that were asked for before a change may not undo it. */
export function chatAfter(state: ChatState, event: ChatEvent): ChatState {
  return after(state, 'messages' in event ? { ...event, messages: upToDate(event.messages, state.changes) } : event)
}

function after(state: ChatState, event: ChatEvent): ChatState {
  switch (event.type) {
    case 'roomLoading':
      return withRoom(state, event.room, (room) => ({
        ...room,
        phase: room.phase === 'ready' ? 'ready' : 'loading',
        problem: null,
      }))
    case 'roomFailed':
      return withRoom(state, event.room, (room) => ({
        ...room,
        phase: room.phase === 'ready' ? 'ready' : event.problem === null ? 'gone' : 'failed',
        problem: event.problem,
      }))
    case 'roomLoaded':
      return withRoom(state, event.room, (room) => ({ ...room, ...merged(room, event), phase: 'ready', problem: null }))
    case 'olderLoading':
      return withRoom(state, event.room, (room) => ({ ...room, older: 'loading' }))
    case 'olderFailed':
      return withRoom(state, event.room, (room) => ({ ...room, older: 'failed' }))
    case 'olderLoaded':
      return withRoom(state, event.room, (room) => ({
        ...room,
        messages: union(room.messages, event.messages),
        hasOlder: event.hasOlder,
        older: 'idle',
      }))
    case 'pastJoined':
      return withRoom(state, event.room, (room) => ({
        ...room,
        messages: union(event.messages, room.messages),
        hasOlder: event.hasOlder,
      }))
    case 'conversationsLoading':
      return state.conversationsPhase === 'ready' ? state : { ...state, conversationsPhase: 'loading' }
    case 'conversationsFailed':
      return state.conversationsPhase === 'ready' ? state : { ...state, conversationsPhase: 'failed' }
    case 'conversationsLoaded':
      return withConversations(state, event.list)
    case 'conversationOpened':
      return state.conversations.some(({ user }) => user.id === event.person.id)
        ? state
        : {
            ...state,
            conversations: sorted([...state.conversations, { user: event.person, last_message: null }]),
          }
    case 'renamed':
      return withName(state, event.person)
    case 'messageArrived':
      return withArrived(state, event.message)
    case 'messageChanged':
      return withChanged(state, event.message)
    case 'messageWasDelivered':
    case 'messageWasRead':
      return withReceipt(state, event.message)
    case 'unreadLoaded': {
      const newerIn = (key: RoomKey, than: number) => fromOthers(state, key, than)
      return { ...state, unread: unreadRoomsAfterList(state.unread, event.asked, event.list, newerIn) }
    }
    case 'unreadChanged': {
      const key = roomOfUnread(event.room)
      const newer = fromOthers(state, key, event.room.last_message_id)
      return { ...state, unread: { ...state.unread, [key]: unreadAfterAnswer(state.unread[key], event.room, newer) } }
    }
    case 'roomRead':
      return {
        ...state,
        unread: { ...state.unread, [event.room]: unreadAfterReading(state.unread[event.room], event.upTo) },
      }
    case 'trimmed':
      return roomIn(state, event.room).messages.length > MAX_KEPT ? withRoom(state, event.room, trimmed) : state
    case 'queued':
      return { ...state, outgoing: [...state.outgoing, event.outgoing] }
    case 'sending':
      return withOutgoing(state, event.key, (one) => ({
        ...one,
        status: 'sending',
        tries: one.tries + 1,
        problem: null,
      }))
    case 'putBack':
      return withOutgoing(state, event.key, (one) => ({ ...one, status: 'waiting' }))
    case 'sendFailed':
      return withOutgoing(state, event.key, (one) => ({ ...one, status: 'failed', problem: event.problem }))
    case 'sent':
      return withSent(state, event.key, event.message)
    case 'retried': {
      const one = state.outgoing.find(({ key }) => key === event.key)
      if (!one) return state
      // To the end: later messages may have been sent already.
      const others = state.outgoing.filter(({ key }) => key !== event.key)
      return { ...state, outgoing: [...others, { ...one, status: 'waiting', tries: 0, problem: null }] }
    }
    case 'discarded':
      return { ...state, outgoing: state.outgoing.filter(({ key }) => key !== event.key) }
  }
}

/** The number of unread messages in a room. */
export function unreadIn(state: ChatState, room: RoomKey): number {
  return (state.unread[room] ?? NOTHING_UNREAD).count
}

export function unreadTotal(state: ChatState): number {
  return Object.values(state.unread).reduce((sum, one) => sum + (one?.count ?? 0), 0)
}

/** The loaded messages of others in a room after one. */
function fromOthers(state: ChatState, room: RoomKey, after: number): Message[] {
  return roomIn(state, room).messages.filter(({ id, user_id }) => id > after && user_id !== state.me)
}

function trimmed(room: Room): Room {
  const messages = room.messages.slice(-KEPT_AFTER_TRIM)
  const rowKeys = Object.fromEntries(messages.flatMap(({ id }) => (room.rowKeys[id] ? [[id, room.rowKeys[id]]] : [])))
  return { ...room, messages, rowKeys, hasOlder: true }
}

/** Outgoing messages of a room that have not arrived as a message yet. */
export function outgoingIn(state: ChatState, room: RoomKey): Outgoing[] {
  return state.outgoing.filter((one) => one.room === room && one.echo === null)
}

/** The oldest waiting message; null if none waits or one is being sent. */
export function nextToSend(state: ChatState): Outgoing | null {
  if (state.outgoing.some(({ status }) => status === 'sending')) return null
  return state.outgoing.find(({ status }) => status === 'waiting') ?? null
}

function withRoom(state: ChatState, key: RoomKey, change: (room: Room) => Room): ChatState {
  return { ...state, rooms: { ...state.rooms, [key]: change(roomIn(state, key)) } }
}

function withOutgoing(state: ChatState, key: string, change: (one: Outgoing) => Outgoing): ChatState {
  return { ...state, outgoing: state.outgoing.map((one) => (one.key === key ? change(one) : one)) }
}

/** Both lists merged in order of id; `newer` wins for ids in both. */
export function union(older: readonly Message[], newer: readonly Message[]): Message[] {
  const byId = new Map(older.map((message) => [message.id, message]))
  for (const message of newer) byId.set(message.id, keepReceipts(byId.get(message.id), message))
  return [...byId.values()].sort((one, other) => one.id - other.id)
}

/** A message stays changed, delivered and read, even if an older copy arrives late. */
function keepReceipts(known: Message | undefined, copy: Message): Message {
  if (!known) return copy
  const message = withContent(copy, known)
  const { is_read, read_at, updated_at } = known.is_read && !message.is_read ? known : message
  return { ...message, is_read, read_at, updated_at, delivered_at: message.delivered_at ?? known.delivered_at }
}

/** Merges a reloaded page with the known messages if they overlap; otherwise the page replaces them. */
function merged(room: Room, page: { messages: readonly Message[]; hasOlder: boolean }) {
  const first = page.messages[0]
  const known = room.messages
  const touches = first !== undefined && known.some(({ id }) => id === first.id)
  if (touches || !page.hasOlder) {
    return { messages: union(known, page.messages), hasOlder: touches ? room.hasOlder : page.hasOlder }
  }
  const live = known.filter(({ id }) => first !== undefined && id >= first.id)
  return { messages: union(page.messages, live), hasOlder: page.hasOlder }
}

function sorted(list: readonly Conversation[]): Conversation[] {
  return [...list].sort((one, other) => {
    // A conversation without messages was just opened: it goes on top.
    const a = one.last_message?.id ?? Number.MAX_SAFE_INTEGER
    const b = other.last_message?.id ?? Number.MAX_SAFE_INTEGER
    return b - a
  })
}

function withConversations(state: ChatState, list: readonly Conversation[]): ChatState {
  const known = new Map(state.conversations.map((one) => [one.user.id, one]))
  for (const { user, last_message } of list) {
    // An event may have brought a message that is newer than the list.
    const isNewer = (known.get(user.id)?.last_message?.id ?? 0) > (last_message?.id ?? 0)
    const [last = null] = last_message ? upToDate([last_message], state.changes) : []
    if (!isNewer) known.set(user.id, { user, last_message: last })
  }
  return { ...state, conversations: sorted([...known.values()]), conversationsPhase: 'ready' }
}

/** A message with a person's present name. */
export function namedIn<T extends { user: Profile; recipient?: Profile | null }>(message: T, person: Profile): T {
  if (message.user.id !== person.id && message.recipient?.id !== person.id) return message
  const { recipient } = message
  return { ...message, user: named(message.user, person), ...(recipient && { recipient: named(recipient, person) }) }
}

function withName(state: ChatState, person: Profile): ChatState {
  const rooms = Object.entries(state.rooms as Record<RoomKey, Room>).map(([key, room]) => [
    key,
    { ...room, messages: room.messages.map((message) => namedIn(message, person)) },
  ])
  return {
    ...state,
    rooms: Object.fromEntries(rooms) as ChatState['rooms'],
    conversations: state.conversations.map((one) => ({
      ...one,
      user: named(one.user, person),
      last_message: one.last_message && namedIn(one.last_message, person),
    })),
  }
}

function withArrived(state: ChatState, arrived: Message): ChatState {
  const [message = arrived] = upToDate([arrived], state.changes)
  const key = roomOf(message, state.me)
  const isKnown = roomIn(state, key).messages.some(({ id }) => id === message.id)
  let next = state.rooms[key]
    ? withRoom(state, key, (room) => ({ ...room, messages: union(room.messages, [message]) }))
    : state
  if (message.recipient_id !== null) next = withLastMessage(next, message)
  if (message.user_id !== state.me) {
    next = { ...next, unread: { ...next.unread, [key]: unreadAfterArrival(next.unread[key], message) } }
  }
  if (message.user_id === state.me && !isKnown) {
    const twin = next.outgoing.find(
      (one) => one.room === key && one.tries > 0 && one.echo === null && one.text === message.message,
    )
    if (twin) next = withOutgoing(next, twin.key, (one) => ({ ...one, echo: message.id }))
  }
  return next
}

function withLastMessage(state: ChatState, message: Message): ChatState {
  const isMine = message.user_id === state.me
  const person = isMine ? message.recipient : message.user
  if (!person) return state
  const known = state.conversations.find(({ user }) => user.id === person.id)
  if (known?.last_message && known.last_message.id >= message.id) return state
  const changed: Conversation = { user: person, last_message: message }
  const others = state.conversations.filter(({ user }) => user.id !== person.id)
  return { ...state, conversations: sorted([changed, ...others]) }
}

/** Changes the text of a message wherever it is shown. */
function withChanged(state: ChatState, message: Message): ChatState {
  const key = roomOf(message, state.me)
  const change = (one: Message): Message => (one.id === message.id ? withContent(one, message) : one)
  const next = { ...state, changes: remembered(state.changes, message) }
  return {
    ...(state.rooms[key] ? withRoom(next, key, (room) => ({ ...room, messages: room.messages.map(change) })) : next),
    conversations: state.conversations.map((one) =>
      one.last_message?.id === message.id ? { ...one, last_message: change(one.last_message) } : one,
    ),
  }
}

/** Marks a message as what its receipt says: delivered, or read. */
function withReceipt(state: ChatState, message: Message): ChatState {
  const key = roomOf(message, state.me)
  const { is_read, read_at, delivered_at, updated_at } = message
  const mark = (one: Message): Message =>
    one.id === message.id ? keepReceipts(one, { ...one, is_read, read_at, delivered_at, updated_at }) : one
  const next = state.rooms[key]
    ? withRoom(state, key, (room) => ({ ...room, messages: room.messages.map(mark) }))
    : state
  const marked = {
    ...next,
    conversations: next.conversations.map((one) =>
      one.last_message?.id === message.id ? { ...one, last_message: mark(one.last_message) } : one,
    ),
  }
  const { messages } = roomIn(marked, key)
  const isKnown = messages.some(({ id }) => id === message.id)
  const isHistory = message.id < (messages[0]?.id ?? 0)
  // A receipt arrives on another channel than its message, and may arrive first: then it adds the message.
  return isKnown || isHistory ? marked : withArrived(marked, message)
}

function withSent(state: ChatState, key: string, message: Message): ChatState {
  const room = roomOf(message, state.me)
  const next = withArrived({ ...state, outgoing: state.outgoing.filter((one) => one.key !== key) }, message)
  return withRoom(next, room, (one) => ({ ...one, rowKeys: { ...one.rowKeys, [message.id]: key } }))
}
