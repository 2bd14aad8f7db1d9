/** Signing in and out, with the session cookie that pages use. */
import { api, csrfToken } from './client'
import type { Account } from './records'

/** Whether it is worth asking: without its token there is no session. */
export const mayBeSignedIn = (): boolean => csrfToken() !== null

export async function currentAccount(): Promise<Account> {
  return (await api.get<{ user: Account }>('/api/session')).body.user
}

export async function signIn(email: string, password: string): Promise<Account> {
  return (await api.post<{ user: Account }>('/api/session', { email, password })).body.user
}

export async function signOut(): Promise<void> {
  await api.delete('/api/session')
}

export async function register(name: string, email: string, password: string): Promise<void> {
  await api.post('/api/register', { name, email, password })
}
