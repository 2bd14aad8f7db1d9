/** The own wallet. */
import { api, lastEventId } from './client'
import type { MovementType, Transaction, Wallet } from './records'

export interface StatementFilter {
  type: MovementType | null
  /** ISO 8601; null for no bound. */
  since: string | null
  until: string | null
}

function query(filter: StatementFilter, more: Record<string, string> = {}): URLSearchParams {
  const given = Object.entries(filter).filter((pair): pair is [string, string] => pair[1] !== null)
  return new URLSearchParams([...given, ...Object.entries(more)])
}

export async function wallet(): Promise<{ wallet: Wallet; eventId: number }> {
  const { body, headers } = await api.get<Wallet>('/api/wallet')
  return { wallet: body, eventId: lastEventId(headers) }
}

export const PAGE = 50

export async function transactions(filter: StatementFilter, before?: number): Promise<Transaction[]> {
  const page = { limit: String(PAGE), ...(before !== undefined && { before: String(before) }) }
  return (await api.get<Transaction[]>(`/api/wallet/transactions?${query(filter, page)}`)).body
}

/** All transactions that match, as a CSV file. */
export const exported = (filter: StatementFilter): Promise<Blob> =>
  api.file(`/api/wallet/transactions.csv?${query(filter)}`)

export async function move(type: MovementType, amount: string, idempotencyKey: string): Promise<Transaction> {
  const path = type === 'deposit' ? '/api/wallet/deposits' : '/api/wallet/withdrawals'
  return (await api.post<Transaction>(path, { amount }, { idempotencyKey })).body
}
