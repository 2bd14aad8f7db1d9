/** The own account: profile, password, personal tokens. */
import { api } from './client'
import type { Account, NewToken, Token } from './records'

export interface ProfileChange {
  name?: string
  email?: string
  /** Required to change the address. */
  current_password?: string
}

export async function changeProfile(change: ProfileChange): Promise<Account> {
  return (await api.patch<Account>('/api/user', change)).body
}

/** Ends every other session, every token and every connection. */
export async function changePassword(current: string, wanted: string): Promise<void> {
  await api.put('/api/user/password', { current_password: current, password: wanted })
}

const PAGE_SIZE = 100

/** All personal tokens, newest first. */
export async function tokens(): Promise<Token[]> {
  const all: Token[] = []
  for (;;) {
    const last = all.at(-1)
    const before = last === undefined ? '' : `&before=${last.id}`
    const page = (await api.get<Token[]>(`/api/tokens?limit=${PAGE_SIZE}${before}`)).body
    all.push(...page)
    if (page.length < PAGE_SIZE) return all
  }
}

export async function createToken(name: string, expiresAt: string | null): Promise<NewToken> {
  return (await api.post<NewToken>('/api/tokens', { name, expires_at: expiresAt })).body
}

export async function revokeToken(id: number): Promise<void> {
  await api.delete(`/api/tokens/${id}`)
}

export async function signOutEverywhere(): Promise<void> {
  await api.post('/api/logout/everywhere')
}
