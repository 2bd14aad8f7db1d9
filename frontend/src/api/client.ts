/**
 * The one way to the REST API: JSON in and out, session cookie, CSRF token, the account shown, socket id, and errors
 * as in `errors.ts`.
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
  /** A token to come with, instead of the session. */
  bearer?: string
  /** Finishes even if the page goes away meanwhile. */
  keepalive?: boolean
}

type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

const TIMEOUT_MS = 20_000

let socketId: () => string | null = () => null
let account: () => number | null = () => null
let onSignedOut: () => void = () => undefined
let onAnotherAccount: () => void = () => undefined

/** Names the socket whose own events it need not hear. */
export function nameSocket(provider: () => string | null): void {
  socketId = provider
}

/** Names the account that this page shows: the server does nothing for another one. */
export function nameAccount(provider: () => number | null): void {
  account = provider
}

/** Told whenever the server says that the session is another account's. */
export function whenAnotherAccount(listener: () => void): void {
  onAnotherAccount = listener
}

/** Told whenever the server says that the session is over. */
export function whenSignedOut(listener: () => void): void {
  onSignedOut = listener
}

/** The part of a session that pages can read; it comes and goes with the rest. */
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

/** The answer, if it is 2xx. Raises what `errors.ts` lists. */
async function answered(method: Method, path: string, asking: Asking): Promise<Response> {
  // All of one request is for the account that was shown when it began.
  const shown = account()
  let response = await attempt(method, path, asking, shown)
  if (response.status === 419) {
    // The token belongs to the session and was renewed or lost; asking who we are brings the current one.
    await attempt('GET', '/api/session', {}, shown)
    response = await attempt(method, path, asking, shown)
  }
  if (response.ok) return response
  const error = await failure(response)
  // What ended for the account before is no news to the present one.
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
  /** A file, whole. A link to it could not say which account its page shows. */
  file: async (path: string): Promise<Blob> => {
    const response = await answered('GET', path, {})
    return response.blob().catch(() => Promise.reject(new Unreachable()))
  },
}

/** The recorded event that a list already holds: where closing its gaps starts. */
export function lastEventId(headers: Headers): number {
  const id = Number(headers.get('X-Event-Id'))
  return Number.isSafeInteger(id) && id > 0 ? id : 0
}
