import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { api, lastEventId, provideAccountId, provideSocketId, onAnotherAccount, onSignedOut } from '@/api/client'
import {
  AnotherAccount,
  ValidationFailed,
  RequestFailed,
  SignedOut,
  Conflict,
  RateLimited,
  Unreachable,
} from '@/api/errors'

const fetching = vi.fn<typeof fetch>()
const answer = (status: number, body: unknown = {}, headers: Record<string, string> = {}) =>
  new Response(status === 204 ? null : JSON.stringify(body), { status, headers })
const requests = () => fetching.mock.calls.map(([path, init]) => `${init?.method} ${String(path)}`)
const headersOf = (call: number) => new Headers(fetching.mock.calls[call]?.[1]?.headers)

beforeEach(() => {
  fetching.mockReset()
  vi.stubGlobal('fetch', fetching)
  document.cookie = 'XSRF-TOKEN=a%2Fb'
  provideSocketId(() => '12.34')
})
afterEach(() => {
  vi.unstubAllGlobals()
  provideSocketId(() => null)
  provideAccountId(() => null)
  onSignedOut(() => undefined)
  onAnotherAccount(() => undefined)
})

it('says which page, which socket and which attempt a change comes from', async () => {
  fetching.mockResolvedValue(answer(201, { id: 1 }))
  await api.post('/api/chat/messages', { message: 'hi' }, { idempotencyKey: 'k' })

  expect(headersOf(0).get('X-XSRF-TOKEN')).toBe('a/b')
  expect(headersOf(0).get('X-Socket-ID')).toBe('12.34')
  expect(headersOf(0).get('Idempotency-Key')).toBe('k')
  expect(fetching.mock.calls[0]?.[1]?.body).toBe('{"message":"hi"}')
})

it('fetches the token anew and tries once more when it does not fit', async () => {
  fetching.mockResolvedValueOnce(answer(419)).mockResolvedValueOnce(answer(200)).mockResolvedValueOnce(answer(201))
  await api.post('/api/chat/typing', { typing: true })

  expect(requests()).toEqual(['POST /api/chat/typing', 'GET /api/session', 'POST /api/chat/typing'])
})

it('tries once only', async () => {
  fetching.mockImplementation((path) =>
    Promise.resolve(answer(path === '/api/session' ? 200 : 419, { message: 'CSRF' })),
  )

  await expect(api.post('/api/chat/typing')).rejects.toBeInstanceOf(RequestFailed)
  expect(fetching).toHaveBeenCalledTimes(3)
})

it('tells that the session is over', async () => {
  const told = vi.fn()
  onSignedOut(told)
  fetching.mockResolvedValue(answer(401, { message: 'Unauthenticated.' }))

  await expect(api.get('/api/user')).rejects.toBeInstanceOf(SignedOut)
  expect(told).toHaveBeenCalledOnce()
})

it('says with every call which account the page shows', async () => {
  provideAccountId(() => 7)
  fetching.mockImplementation(() => Promise.resolve(answer(200)))
  await Promise.all([api.get('/a'), api.post('/a'), api.put('/a'), api.patch('/a'), api.delete('/a'), api.file('/a')])

  expect(fetching.mock.calls.map((_, call) => headersOf(call).get('X-Account'))).toEqual(Array(6).fill('7'))
})

it('stays with the account that a request began for', async () => {
  let shown: number | null = 7
  provideAccountId(() => shown)
  fetching.mockImplementationOnce(() => {
    shown = 8
    return Promise.resolve(answer(419))
  })
  fetching.mockResolvedValueOnce(answer(409)).mockResolvedValueOnce(answer(409, {}, { 'X-Account': '8' }))
  const told = vi.fn()
  onAnotherAccount(told)

  await expect(api.post('/api/wallet/deposits')).rejects.toBeInstanceOf(AnotherAccount)
  expect([0, 1, 2].map((call) => headersOf(call).get('X-Account'))).toEqual(['7', '7', '7'])
  // The page shows the other one by now.
  expect(told).not.toHaveBeenCalled()
})

it("tells that the session is another account's, and takes that for no newer version", async () => {
  const [another, over] = [vi.fn(), vi.fn()]
  provideAccountId(() => 7)
  onAnotherAccount(another)
  onSignedOut(over)
  fetching
    .mockResolvedValueOnce(answer(409, { message: 'Another account.' }, { 'X-Account': '8' }))
    .mockResolvedValueOnce(answer(409, { version: 3 }))

  await expect(api.get('/api/wallet')).rejects.toBeInstanceOf(AnotherAccount)
  await expect(api.patch('/api/campaigns/1')).rejects.toBeInstanceOf(Conflict)
  expect([another.mock.calls.length, over.mock.calls.length]).toEqual([1, 0])
})

it('names the field that was refused', async () => {
  fetching.mockResolvedValue(answer(422, { message: 'Invalid.', errors: { email: ['is taken'] } }))

  const error = await api.post('/api/register', {}).catch((thrown: unknown) => thrown)
  expect(error).toBeInstanceOf(ValidationFailed)
  expect((error as ValidationFailed).about('email')).toBe('is taken')
})

it('says how long to wait when it was too often', async () => {
  fetching.mockResolvedValue(answer(429, { message: 'Too many.' }, { 'Retry-After': '7' }))

  await expect(api.post('/api/chat/messages', {})).rejects.toMatchObject({ retryAfterS: 7 })
  await expect(api.post('/api/chat/messages', {})).rejects.toBeInstanceOf(RateLimited)
})

it.each([502, 503, 504])('takes %i for a server that is away', async (status) => {
  fetching.mockResolvedValue(answer(status))

  await expect(api.get('/api/user')).rejects.toBeInstanceOf(Unreachable)
})

it('takes no answer for a server that is away', async () => {
  fetching.mockRejectedValue(new TypeError('Failed to fetch'))

  await expect(api.get('/api/user')).rejects.toBeInstanceOf(Unreachable)
})

it('reads where closing gaps starts', () => {
  expect(lastEventId(new Headers({ 'X-Event-Id': '41' }))).toBe(41)
  expect(lastEventId(new Headers())).toBe(0)
})
