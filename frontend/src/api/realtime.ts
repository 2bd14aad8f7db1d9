/** The address of the realtime server, authorisation for its channels, and missed events. */
import { api } from './client'
import type { RealtimePlace, RecordedEvents } from './records'

export interface ChannelAuthorization {
  auth: string
  channel_data?: string
  shared_secret?: string
}

export async function realtimePlace(): Promise<RealtimePlace> {
  return (await api.get<RealtimePlace>('/api/realtime')).body
}

export async function authorizeChannel(socketId: string, channel: string): Promise<ChannelAuthorization> {
  const { body } = await api.post<ChannelAuthorization>('/broadcasting/auth', {
    socket_id: socketId,
    channel_name: channel,
  })
  return body
}

export interface UserAuthentication {
  auth: string
  user_data: string
}

export async function authenticateUser(socketId: string): Promise<UserAuthentication> {
  return (await api.post<UserAuthentication>('/broadcasting/user-auth', { socket_id: socketId })).body
}

interface ListedEvent {
  id: number
  event: string
  data: unknown
}

/** Durable events of a channel after the event `after`, oldest first. */
export async function eventsAfter(channel: string, after: number): Promise<RecordedEvents> {
  const query = new URLSearchParams({ channel, after: String(after) })
  const { body } = await api.get<{ events: ListedEvent[]; complete: boolean }>(`/api/events?${query}`)
  return {
    events: body.events.map(({ id, event, data }) => ({ eventId: id, name: event, payload: data })),
    complete: body.complete,
  }
}
