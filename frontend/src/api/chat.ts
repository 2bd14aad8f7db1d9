/** The chat's endpoints. `personId` is the other person of a direct conversation, or null for the general chat. */
import { api, lastEventId } from './client'
import type { Conversation, FoundMessage, Message, MessageVersion, RoomUnread } from './records'

export const PAGE = 50

export interface Page {
  /** Oldest first. */
  messages: Message[]
  /** The last recorded event of the channel that this page includes. */
  eventId: number
  /** Whether there may be older messages. */
  hasOlder: boolean
}

const listPath = (personId: number | null) =>
  personId === null ? '/api/chat/messages' : `/api/chat/messages/private/${personId}`

export async function messages(personId: number | null, before?: number): Promise<Page> {
  const query = new URLSearchParams({ limit: String(PAGE) })
  if (before !== undefined) query.set('before', String(before))
  const { body, headers } = await api.get<Message[]>(`${listPath(personId)}?${query}`)
  return { messages: body, eventId: lastEventId(headers), hasOlder: body.length >= PAGE }
}

/** The messages after a given one, oldest first. `isEnd`: there are no more. */
export async function messagesAfter(
  personId: number | null,
  after: number,
): Promise<{ messages: Message[]; isEnd: boolean }> {
  const query = new URLSearchParams({ limit: String(PAGE), after: String(after) })
  const { body } = await api.get<Message[]>(`${listPath(personId)}?${query}`)
  return { messages: body, isEnd: body.length < PAGE }
}

export const SEARCH_PAGE = 20

/** Messages that contain these words, newest first. */
export async function search(words: string, before: number | null, signal: AbortSignal): Promise<FoundMessage[]> {
  const query = new URLSearchParams({
    q: words,
    limit: String(SEARCH_PAGE),
    ...(before !== null && { before: String(before) }),
  })
  return (await api.get<FoundMessage[]>(`/api/chat/search?${query}`, { signal })).body
}

export async function send(personId: number | null, text: string, idempotencyKey: string): Promise<Message> {
  const { body } =
    personId === null
      ? await api.post<Message>('/api/chat/messages', { message: text }, { idempotencyKey })
      : await api.post<Message>(
          '/api/chat/messages/private',
          { recipient_id: personId, message: text },
          { idempotencyKey },
        )
  return body
}

export async function sendTyping(personId: number | null, typing: boolean): Promise<void> {
  await api.post('/api/chat/typing', personId === null ? { typing } : { typing, recipient_id: personId }, {
    keepalive: !typing,
  })
}

export async function conversations(): Promise<{ list: Conversation[]; eventId: number }> {
  const { body, headers } = await api.get<Conversation[]>('/api/chat/conversations')
  return { list: body, eventId: lastEventId(headers) }
}

/** What is unread in General and in direct conversations. */
export async function unread(): Promise<RoomUnread[]> {
  return (await api.get<RoomUnread[]>('/api/chat/unread')).body
}

/** Marks a room as read up to a message; resolves to what is unread then. */
export async function readUpTo(personId: number | null, messageId: number, isLeaving = false): Promise<RoomUnread> {
  const body = { peer_id: personId, last_read_id: messageId }
  return (await api.post<RoomUnread>('/api/chat/read', body, { keepalive: isLeaving })).body
}

/** Marks a message and what follows it as unread. */
export async function markUnread(messageId: number): Promise<RoomUnread> {
  return (await api.post<RoomUnread>(`/api/chat/messages/${messageId}/unread`)).body
}

/** Changes the text of one's own message. */
export async function edit(messageId: number, text: string, idempotencyKey: string): Promise<FoundMessage> {
  return (await api.patch<FoundMessage>(`/api/chat/messages/${messageId}`, { message: text }, { idempotencyKey })).body
}

/** Deletes one's own message; resolves to what remains. */
export async function remove(messageId: number): Promise<FoundMessage> {
  return (await api.delete<FoundMessage>(`/api/chat/messages/${messageId}`)).body
}

/** The texts that a message of General has had, oldest first; for admins. */
export async function versions(messageId: number): Promise<MessageVersion[]> {
  return (await api.get<MessageVersion[]>(`/api/admin/messages/${messageId}/versions`)).body
}
