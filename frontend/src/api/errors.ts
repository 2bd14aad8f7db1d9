/**
 * The errors of requests, grouped by who must act.
 *
 * ApiError
 * ├── Unreachable         no answer, or a service behind the portal is down: try again later
 * ├── SignedOut           401: sign in again
 * │   └── AnotherAccount  409 with `X-Account`: the browser is signed in to another account than the page shows
 * ├── RateLimited         429: wait `retryAfterS`
 * ├── Conflict            409: someone else changed it first; load it again
 * ├── ValidationFailed    422: the user corrects the named fields
 * └── RequestFailed       any other response that is not 2xx
 */
export class ApiError extends Error {
  override name = 'ApiError'
}

export class Unreachable extends ApiError {
  override name = 'Unreachable'
  constructor(
    message = "Can't reach SmartLink right now.",
    readonly retryAfterS: number | null = null,
  ) {
    super(message)
  }
}

export class SignedOut extends ApiError {
  override name = 'SignedOut'
}

export class AnotherAccount extends SignedOut {
  override name = 'AnotherAccount'
}

export class RateLimited extends ApiError {
  override name = 'RateLimited'
  constructor(
    message: string,
    readonly retryAfterS: number,
  ) {
    super(message)
  }
}

export class Conflict extends ApiError {
  override name = 'Conflict'
}

export class ValidationFailed extends ApiError {
  override name = 'ValidationFailed'
  constructor(
    message: string,
    readonly errors: Readonly<Record<string, readonly string[]>>,
  ) {
    super(message)
  }

  /** The first message about a field, or null. */
  about(field: string): string | null {
    return this.errors[field]?.[0] ?? null
  }
}

export class RequestFailed extends ApiError {
  override name = 'RequestFailed'
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message)
  }
}

/** Returns a sentence for the user about anything that was thrown. */
export function describeError(error: unknown): string {
  if (error instanceof RateLimited) return `Too many requests. Try again in ${error.retryAfterS} s.`
  if (error instanceof ValidationFailed) return Object.values(error.errors)[0]?.[0] ?? error.message
  if (error instanceof ApiError) return error.message
  return 'Something went wrong.'
}
