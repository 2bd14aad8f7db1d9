/** The address of the realtime server, authorisation for its channels, and missed events. */
import { api } from './client'
import { RequestFailed } from './errors'
import type { RealtimeEndpoint, RecordedEvents } from './records'

export interface ChannelAuthorization {
  auth: string
  channel_data?: string
  shared_secret?: string
}

export async function realtimeEndpoint(): Promise<RealtimeEndpoint> {
  return (await api.get<RealtimeEndpoint>('/api/realtime')).body
}

/** What the server answers about one of several channels. */
interface ChannelAnswer {
  status: number
  data: ChannelAuthorization & { message?: string }
}

interface Asking {
  channel: string
  resolve(answer: ChannelAuthorization): void
  reject(error: unknown): void
}

/** The most channels in one request. */
const MOST_AT_ONCE = 100
const asking = new Map<string, Asking[]>()

/** Authorizes a channel. Those that are asked for in one go share a request. */
export function authorizeChannel(socketId: string, channel: string): Promise<ChannelAuthorization> {
  return new Promise((resolve, reject) => {
    const waiting = asking.get(socketId)
    if (waiting) waiting.push({ channel, resolve, reject })
    else {
      asking.set(socketId, [{ channel, resolve, reject }])
      setTimeout(() => authorizeAll(socketId))
    }
  })
}

function authorizeAll(socketId: string): void {
  const all = asking.get(socketId) ?? []
  asking.delete(socketId)
  for (let first = 0; first < all.length; first += MOST_AT_ONCE) {
    const some = all.slice(first, first + MOST_AT_ONCE)
    authorizeThese(socketId, some).catch((error: unknown) => some.forEach(({ reject }) => reject(error)))
  }
}

async function authorizeThese(socketId: string, some: readonly Asking[]): Promise<void> {
  const channels = some.map(({ channel }) => channel)
  const { body } = await api.post<{ channels: Record<string, ChannelAnswer> }>('/broadcasting/auth', {
    socket_id: socketId,
    channels,
  })
  for (const { channel, resolve, reject } of some) {
    const answer = body.channels[channel]
    if (answer?.status === 200) resolve(answer.data)
    else reject(new RequestFailed(answer?.data.message ?? 'Forbidden.', answer?.status ?? 403))
  }
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
