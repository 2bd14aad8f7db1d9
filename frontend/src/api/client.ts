/**
 * The client of the REST API: JSON in and out, session cookie, CSRF token, the shown account, socket id, and the
 * errors of `errors.ts`.
 */
import {
  AnotherAccount,
  ValidationFailed,
  RequestFailed,
  SignedOut,
  Conflict,
  RateLimited,
  Unreachable,
} from './errors'

export interface ApiResponse<T> {
  body: T
  headers: Headers
}

export interface RequestOptions {
  body?: unknown
  idempotencyKey?: string
  signal?: AbortSignal
  /** A token to authenticate with, instead of the session. */
  bearer?: string
  /** Finishes even if the page is closed in the meantime. */
  keepalive?: boolean
}

type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

const TIMEOUT_MS = 20_000

let socketId: () => string | null = () => null
let account: () => number | null = () => null
let signedOutListener: () => void = () => undefined
let anotherAccountListener: () => void = () => undefined

/** Sets the source of the id of the socket that must not receive the events it causes. */
export function provideSocketId(provider: () => string | null): void {
  socketId = provider
}

/** Sets the source of the id of the account that this page shows: the server refuses requests for any other. */
export function provideAccountId(provider: () => number | null): void {
  account = provider
}

/** Calls `listener` when the server says that the session belongs to another account. */
export function onAnotherAccount(listener: () => void): void {
  anotherAccountListener = listener
}

/** Calls `listener` when the server says that the session has ended. */
export function onSignedOut(listener: () => void): void {
  signedOutListener = listener
}

/** The part of the session that scripts can read; it is set and cleared together with the rest. */
export function csrfToken(): string | null {
  const found = /(?:^|;\s*)XSRF-TOKEN=([^;]*)/.exec(document.cookie)
  return found?.[1] ? decodeURIComponent(found[1]) : null
}

async function attempt(method: Method, path: string, options: RequestOptions, shown: number | null): Promise<Response> {
  const headers = new Headers({ Accept: 'application/json' })
  if (shown !== null) headers.set('X-Account', String(shown))
  if (options.body !== undefined) headers.set('Content-Type', 'application/json')
  if (method !== 'GET') {
    const token = csrfToken()
    const socket = socketId()
    if (token) headers.set('X-XSRF-TOKEN', token)
    if (socket) headers.set('X-Socket-ID', socket)
    if (options.idempotencyKey) headers.set('Idempotency-Key', options.idempotencyKey)
  }
  if (options.bearer !== undefined) headers.set('Authorization', `Bearer ${options.bearer}`)
  const timeout = AbortSignal.timeout(TIMEOUT_MS)
  try {
    return await fetch(path, {
      method,
      headers,
      credentials: 'same-origin',
      cache: 'no-store',
      keepalive: options.keepalive ?? false,
      signal: options.signal ? AbortSignal.any([options.signal, timeout]) : timeout,
      ...(options.body !== undefined && { body: JSON.stringify(options.body) }),
    })
  } catch (error) {
    if (options.signal?.aborted) throw error
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
        : new Conflict(text ?? 'This has changed since you loaded it.')
    case 422:
      return new ValidationFailed(text ?? 'The request was invalid.', (said.errors ?? {}) as Record<string, string[]>)
    case 429:
      return new RateLimited(text ?? 'Too many requests.', retryAfter(response, 1))
    case 502:
    case 503:
    case 504:
      return new Unreachable('SmartLink is busy or restarting.', retryAfter(response, 2))
    default:
      return new RequestFailed(text ?? `The server responded with ${response.status}.`, response.status)
  }
}

/** Resolves to a 2xx response. Raises the errors of `errors.ts`. */
async function send(method: Method, path: string, options: RequestOptions): Promise<Response> {
  // A request, retries included, is for the account that was shown when it began.
  const shown = account()
  let response = await attempt(method, path, options, shown)
  if (response.status === 419) {
    // The token belongs to the session and was renewed or lost; fetching the session brings the current one.
    await attempt('GET', '/api/session', {}, shown)
    response = await attempt(method, path, options, shown)
  }
  if (response.ok) return response
  const error = await failure(response)
  // A session that ended for a former account does not concern the present one.
  if (shown === account()) {
    if (error instanceof AnotherAccount) anotherAccountListener()
    else if (error instanceof SignedOut) signedOutListener()
  }
  throw error
}

async function request<T>(method: Method, path: string, options: RequestOptions = {}): Promise<ApiResponse<T>> {
  const response = await send(method, path, options)
  const body = response.status === 204 ? undefined : await response.json().catch(() => undefined)
  return { body: body as T, headers: response.headers }
}

export const api = {
  get: <T>(path: string, options?: RequestOptions) => request<T>('GET', path, options),
  post: <T>(path: string, body?: unknown, options?: RequestOptions) => request<T>('POST', path, { ...options, body }),
  put: <T>(path: string, body?: unknown, options?: RequestOptions) => request<T>('PUT', path, { ...options, body }),
  patch: <T>(path: string, body?: unknown, options?: RequestOptions) => request<T>('PATCH', path, { ...options, body }),
  delete: <T = undefined>(path: string) => request<T>('DELETE', path),
  /** A whole file. A plain link could not send the account that the page shows. */
  file: async (path: string): Promise<Blob> => {
    const response = await send('GET', path, {})
    return response.blob().catch(() => Promise.reject(new Unreachable()))
  },
}

/** The last recorded event that a list includes: gaps are closed from there. */
export function lastEventId(headers: Headers): number {
  const id = Number(headers.get('X-Event-Id'))
  return Number.isSafeInteger(id) && id > 0 ? id : 0
}
