/**
 * The errors of requests, grouped by who must act.
 *
 * ApiError
 * ├── Unreachable     no answer, or a service behind the portal is down: try again later
 * ├── SignedOut       401: sign in again
 * │   └── AnotherAccount  409 with `X-Account`: the browser is signed in to another account than this page shows
 * ├── TooOften        429: wait `retryAfterS`
 * ├── Stale           409: someone else changed it first; load it again
 * ├── Refused         422: the user corrects the named fields
 * └── Rejected        any other response that is not 2xx
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

export class TooOften extends ApiError {
  override name = 'TooOften'
  constructor(
    message: string,
    readonly retryAfterS: number,
  ) {
    super(message)
  }
}

export class Stale extends ApiError {
  override name = 'Stale'
}

export class Refused extends ApiError {
  override name = 'Refused'
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

export class Rejected extends ApiError {
  override name = 'Rejected'
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message)
  }
}

/** One sentence for the user about anything that was thrown. */
export function sentence(error: unknown): string {
  if (error instanceof TooOften) return `Too many requests. Try again in ${error.retryAfterS} s.`
  if (error instanceof Refused) return Object.values(error.errors)[0]?.[0] ?? error.message
  if (error instanceof ApiError) return error.message
  return 'Something went wrong.'
}
