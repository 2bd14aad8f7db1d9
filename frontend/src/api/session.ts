/** Signing in and out, with the session cookie that pages use. */
import { api, csrfToken, lastEventId, type ApiResponse } from './client'
import type { Account } from './records'

/** Whether there may be a session: without a CSRF token there is none. */
export const mayBeSignedIn = (): boolean => csrfToken() !== null

export interface Session {
  account: Account
  /** Lists loaded from now on include all renames on `presence-chat` up to this event. */
  eventId: number
}

const opened = ({ body, headers }: ApiResponse<{ user: Account }>): Session => ({
  account: body.user,
  eventId: lastEventId(headers),
})

export async function currentSession(): Promise<Session> {
  return opened(await api.get('/api/session'))
}

export async function signIn(email: string, password: string): Promise<Session> {
  return opened(await api.post('/api/session', { email, password }))
}

export async function signOut(): Promise<void> {
  await api.delete('/api/session')
}

/** Resolves to the token of the new account. */
export async function register(name: string, email: string, password: string): Promise<string> {
  return (await api.post<{ token: string }>('/api/register', { name, email, password })).body.token
}

export async function revoke(token: string): Promise<void> {
  await api.post('/api/logout', undefined, { bearer: token })
}
