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

/** Resolves to the token that a new account comes with. */
export async function register(name: string, email: string, password: string): Promise<string> {
  return (await api.post<{ token: string }>('/api/register', { name, email, password })).body.token
}

export async function revoke(token: string): Promise<void> {
  await api.post('/api/logout', undefined, { bearer: token })
}
