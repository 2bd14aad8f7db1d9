/** The endpoints for admins. Other accounts get a 403. */
import { api } from './client'
import type {
  AdminUser,
  AuditEntry,
  ChannelCount,
  ConnectionsNow,
  FailedJob,
  FigureSample,
  Figures,
  ListedEvent,
} from './records'

export const PAGE = 50

function paged(before: number | undefined, more: Record<string, string> = {}): string {
  return String(
    new URLSearchParams({ limit: String(PAGE), ...(before !== undefined && { before: String(before) }), ...more }),
  )
}

export async function overview(): Promise<{ now: Figures; history: FigureSample[] }> {
  return (await api.get<{ now: Figures; history: FigureSample[] }>('/api/admin/overview')).body
}

/** Newest first; `search` matches name and address. */
export async function users(search: string, before?: number, signal?: AbortSignal): Promise<AdminUser[]> {
  const query = paged(before, search === '' ? {} : { q: search })
  return (await api.get<AdminUser[]>(`/api/admin/users?${query}`, signal ? { signal } : {})).body
}

export async function changeUser(id: number, change: { is_admin?: boolean; is_blocked?: boolean }): Promise<AdminUser> {
  return (await api.patch<AdminUser>(`/api/admin/users/${id}`, change)).body
}

/** Closes the connections of a user, who may reconnect. */
export async function disconnectUser(id: number): Promise<void> {
  await api.post(`/api/admin/users/${id}/disconnect`)
}

export async function connections(): Promise<ConnectionsNow> {
  return (await api.get<ConnectionsNow>('/api/admin/connections')).body
}

export async function channels(): Promise<ChannelCount[]> {
  return (await api.get<ChannelCount[]>('/api/admin/channels')).body
}

export async function events(channel: string, before?: number): Promise<ListedEvent[]> {
  const query = paged(before, channel === '' ? {} : { channel })
  return (await api.get<ListedEvent[]>(`/api/admin/events?${query}`)).body
}

export async function failedJobs(before?: number): Promise<FailedJob[]> {
  return (await api.get<FailedJob[]>(`/api/admin/failed-jobs?${paged(before)}`)).body
}

export async function retryJob(id: number): Promise<void> {
  await api.post(`/api/admin/failed-jobs/${id}/retry`)
}

export async function retryAllJobs(): Promise<void> {
  await api.post('/api/admin/failed-jobs/retry')
}

export async function forgetJob(id: number): Promise<void> {
  await api.delete(`/api/admin/failed-jobs/${id}`)
}

export async function forgetAllJobs(): Promise<void> {
  await api.delete('/api/admin/failed-jobs')
}

/** Sends an event exactly as given. Raises ValidationFailed about `channel`, `event` or `data`. */
export async function broadcast(channel: string, event: string, data: unknown): Promise<void> {
  await api.post('/api/admin/broadcast', { channel, event, data })
}

export async function audit(before?: number): Promise<AuditEntry[]> {
  return (await api.get<AuditEntry[]>(`/api/admin/audit?${paged(before)}`)).body
}
