/**
 * The client of the REST API: JSON in and out, session cookie, CSRF token, the shown account, socket id, and the
 * errors of `errors.ts`.
 */
import { AnotherAccount, Refused, Rejected, SignedOut, Stale, TooOften, Unreachable } from './errors'

export interface Answer<T> {
  body: T
  headers: Headers
}

export interface Asking {
  body?: unknown
  idempotencyKey?: string
  signal?: AbortSignal
  /** A token to authenticate with, instead of the session. */
  bearer?: string
  /** Finishes even if the page is closed meanwhile. */
  keepalive?: boolean
}

type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

const TIMEOUT_MS = 20_000

let socketId: () => string | null = () => null
let account: () => number | null = () => null
let onSignedOut: () => void = () => undefined
let onAnotherAccount: () => void = () => undefined

/** Names the socket that need not receive the events it causes. */
export function nameSocket(provider: () => string | null): void {
  socketId = provider
}

/** Names the account that this page shows: the server refuses requests for any other. */
export function nameAccount(provider: () => number | null): void {
  account = provider
}

/** Calls `listener` when the server says that the session belongs to another account. */
export function whenAnotherAccount(listener: () => void): void {
  onAnotherAccount = listener
}

/** Calls `listener` when the server says that the session has ended. */
export function whenSignedOut(listener: () => void): void {
  onSignedOut = listener
}

/** The part of the session that scripts can read; it is set and cleared together with the rest. */
export function csrfToken(): string | null {
  const found = /(?:^|;\s*)XSRF-TOKEN=([^;]*)/.exec(document.cookie)
  return found?.[1] ? decodeURIComponent(found[1]) : null
}

async function attempt(method: Method, path: string, asking: Asking, shown: number | null): Promise<Response> {
  const headers = new Headers({ Accept: 'application/json' })
  if (shown !== null) headers.set('X-Account', String(shown))
  if (asking.body !== undefined) headers.set('Content-Type', 'application/json')
  if (method !== 'GET') {
    const token = csrfToken()
    const socket = socketId()
    if (token) headers.set('X-XSRF-TOKEN', token)
    if (socket) headers.set('X-Socket-ID', socket)
    if (asking.idempotencyKey) headers.set('Idempotency-Key', asking.idempotencyKey)
  }
  if (asking.bearer !== undefined) headers.set('Authorization', `Bearer ${asking.bearer}`)
  const timeout = AbortSignal.timeout(TIMEOUT_MS)
  try {
    return await fetch(path, {
      method,
      headers,
      credentials: 'same-origin',
      cache: 'no-store',
      keepalive: asking.keepalive ?? false,
      signal: asking.signal ? AbortSignal.any([asking.signal, timeout]) : timeout,
      ...(asking.body !== undefined && { body: JSON.stringify(asking.body) }),
    })
  } catch (error) {
    if (asking.signal?.aborted) throw error
    throw new Unreachable()
  }
}

function retryAfter(response: Response, otherwise: number): number {
  const seconds = Number(response.headers.get('Retry-After'))
  return Number.isFinite(seconds) && seconds > 0 ? Math.ceil(seconds) : otherwise
}

async function failure(response: Response): Promise<Error> {
  const body: unknown = await response.json().catch(() => null)
  const said = (body ?? {}) as { message?: unknown; error?: unknown; errors?: unknown }
  const text = [said.message, said.error].find((one) => typeof one === 'string')
  switch (response.status) {
    case 401:
      return new SignedOut(text ?? "You're signed out.")
    case 409:
      return response.headers.has('X-Account')
        ? new AnotherAccount(text ?? 'A different account is signed in.')
        : new Stale(text ?? 'This has changed since you loaded it.')
    case 422:
      return new Refused(text ?? 'The request was invalid.', (said.errors ?? {}) as Record<string, string[]>)
    case 429:
      return new TooOften(text ?? 'Too many requests.', retryAfter(response, 1))
    case 502:
    case 503:
    case 504:
      return new Unreachable('SmartLink is busy or restarting.', retryAfter(response, 2))
    default:
      return new Rejected(text ?? `The server responded with ${response.status}.`, response.status)
  }
}

/** Resolves to a 2xx response. Raises the errors of `errors.ts`. */
async function answered(method: Method, path: string, asking: Asking): Promise<Response> {
  // A request, retries included, is for the account that was shown when it began.
  const shown = account()
  let response = await attempt(method, path, asking, shown)
  if (response.status === 419) {
    // The token belongs to the session and was renewed or lost; fetching the session brings the current one.
    await attempt('GET', '/api/session', {}, shown)
    response = await attempt(method, path, asking, shown)
  }
  if (response.ok) return response
  const error = await failure(response)
  // A session that ended for a former account does not concern the present one.
  if (shown === account()) {
    if (error instanceof AnotherAccount) onAnotherAccount()
    else if (error instanceof SignedOut) onSignedOut()
  }
  throw error
}

async function request<T>(method: Method, path: string, asking: Asking = {}): Promise<Answer<T>> {
  const response = await answered(method, path, asking)
  const body = response.status === 204 ? undefined : await response.json().catch(() => undefined)
  return { body: body as T, headers: response.headers }
}

export const api = {
  get: <T>(path: string, asking?: Asking) => request<T>('GET', path, asking),
  post: <T>(path: string, body?: unknown, asking?: Asking) => request<T>('POST', path, { ...asking, body }),
  put: <T>(path: string, body?: unknown, asking?: Asking) => request<T>('PUT', path, { ...asking, body }),
  patch: <T>(path: string, body?: unknown, asking?: Asking) => request<T>('PATCH', path, { ...asking, body }),
  delete: (path: string) => request<undefined>('DELETE', path),
  /** A whole file. A plain link could not send the account that the page shows. */
  file: async (path: string): Promise<Blob> => {
    const response = await answered('GET', path, {})
    return response.blob().catch(() => Promise.reject(new Unreachable()))
  },
}

/** The last recorded event that a list includes: gaps are closed from there. */
export function lastEventId(headers: Headers): number {
  const id = Number(headers.get('X-Event-Id'))
  return Number.isSafeInteger(id) && id > 0 ? id : 0
}
