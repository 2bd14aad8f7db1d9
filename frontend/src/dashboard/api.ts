/** Calls of the operator API, and its live console. */

export interface Finding {
  key: string
  level: 'problem' | 'warning'
  title: string
  /** Seconds since 1970. */
  since: number
  advice: string
  where: string
}

export interface AppTotals {
  id: string
  connections: number
  channels: number
  subscriptions: number
}

export interface Process {
  node: string
  host: string
  pid: number
  version: string
  uptime_s: number
  is_ready: boolean
  connections: number
  received_per_s: number
  published_per_s: number
  delivered_per_s: number
  loop_lag_s: number
  memory_bytes: number
  descriptors: number
  redis: string
  problems: string[]
  warnings: string[]
  slow_consumers: number
  refused: Record<string, number>
}

export interface Overview {
  findings: Finding[]
  apps: AppTotals[]
  processes: Process[]
  missing: number
}

export interface ConnectionRow {
  socket_id: string
  app_id: string
  node: string
  user_id: string
  address: string
  client: string
  transport: string
  since: number
  channels: number
  backlog_bytes: number
}

export interface ConnectionDetail extends ConnectionRow {
  channel_names: string[]
  member_of: Record<string, string>
  signed_in_as: string | null
  user_info: unknown
  heard_s: number
  is_pinged: boolean
  authorize_within_s: number | null
  waiting_messages: number
  is_resumable: boolean
}

export interface ChannelRow {
  name: string
  kind: string
  subscriptions: number
  users: number | null
}

export interface ChannelDetail {
  channel: ChannelRow
  history: { position: number; frame: string; ttl_s: number | null }[]
}

export interface Page<Row> {
  rows: Row[]
  next: string
  missing: number
}

export interface AppRow {
  id: string
  key: string
  is_enabled: boolean
  limits: Record<string, unknown>
  allowed_origins: string[]
  webhooks: { address: string; events: string[]; channel_prefixes: string[] }[]
  policies: { pattern: string; says: string }[]
}

export interface FailedWebhook {
  id: number
  app_id: string
  address: string
  failed_at: number
  reason: string
  events: unknown[]
  count: number
}

export interface Action {
  at: number
  operator: string
  address: string
  action: string
  app_id: string
  target: string
  outcome: string
}

export interface Charts {
  series: string[]
  points: number[][]
}

export interface Session {
  operator: string
  app_id: string | null
  version: string
}

export const KINDS = [
  'connect',
  'disconnect',
  'subscribe',
  'unsubscribe',
  'publish',
  'client_event',
  'webhook',
  'refused',
  'error',
  'received',
  'sent',
] as const
export type Kind = (typeof KINDS)[number]

export interface Entry {
  at: number
  kind: Kind
  app_id?: string
  channel?: string
  event?: string
  user_id?: string
  socket_id?: string
  data?: string
  why?: string
}

export interface Batch {
  node: string
  entries: Entry[]
  dropped: number
}

export interface Explanation {
  subject: string
  kind: string
  facts: string[]
  problems: Entry[]
  is_known: boolean
}

/** An answer that is no success. `status` is 0 if there was none. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message)
  }
}

type Query = Record<string, string | undefined>

const KEY = 'smartlink.operator-token'
let token = sessionStorage.getItem(KEY)

/** Uses a token from now on, in this tab only. */
export function useToken(given: string): void {
  token = given
  sessionStorage.setItem(KEY, given)
}

function headers(): Record<string, string> {
  return token === null ? {} : { Authorization: `Bearer ${token}` }
}

function address(path: string, query: Query): string {
  const given = Object.entries(query).filter((pair): pair is [string, string] => Boolean(pair[1]))
  return `/api/${path}${given.length > 0 ? `?${new URLSearchParams(given)}` : ''}`
}

async function call(url: string, init: RequestInit): Promise<Response> {
  let answer: Response
  try {
    answer = await fetch(url, init)
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error
    throw new ApiError(0, 'The server does not answer.')
  }
  if (answer.ok) return answer
  const body: unknown = await answer.json().catch(() => null)
  const told = typeof body === 'object' && body !== null && 'error' in body ? String(body.error) : null
  throw new ApiError(answer.status, told ?? `The server answers ${answer.status}.`)
}

export async function get<Answer>(path: string, query: Query = {}): Promise<Answer> {
  return (await (await call(address(path, query), { headers: headers() })).json()) as Answer
}

export async function post<Answer>(path: string, body: unknown): Promise<Answer> {
  const sent = { ...headers(), 'Content-Type': 'application/json' }
  return (await (
    await call(`/api/${path}`, { method: 'POST', headers: sent, body: JSON.stringify(body) })
  ).json()) as Answer
}

/** Passes on what a console tells, until aborted. Throws when the server ends it. */
export async function watch(
  query: Query,
  signal: AbortSignal,
  opened: () => void,
  take: (batch: Batch) => void,
): Promise<void> {
  const answer = await call(address('console', query), { headers: headers(), signal })
  if (answer.body === null) return
  opened()
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  for (;;) {
    const { done, value } = await reader.read()
    if (done) throw new ApiError(0, 'The server has ended the console.')
    const lines = (rest + value).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) if (line.startsWith('data: ')) take(JSON.parse(line.slice(6)) as Batch)
  }
}
