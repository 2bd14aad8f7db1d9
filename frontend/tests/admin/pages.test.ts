import { expect, it } from 'vitest'
import { pagedAfter, type Paged, type PagedEvent } from '@/features/admin/pages'
import { auditText } from '@/features/admin/words'

interface One {
  id: number
  name?: string
}

const start: Paged<One> = { phase: 'loading', list: [], hasOlder: false }
const after = (...events: PagedEvent<One>[]) => events.reduce<Paged<One>>(pagedAfter, start)
const ids = (...list: number[]) => list.map((id) => ({ id }))

it('pages follow one another without doubles', () => {
  const state = after(
    { type: 'loaded', list: ids(3, 2), hasOlder: true },
    { type: 'olderLoaded', list: ids(2, 1), hasOlder: false },
  )

  expect(state).toEqual({ phase: 'ready', list: ids(3, 2, 1), hasOlder: false })
})

it('a list stays while it is loaded again or that fails', () => {
  expect(after({ type: 'failed' }).phase).toBe('failed')
  expect(after({ type: 'loaded', list: ids(1), hasOlder: false }, { type: 'loading' }, { type: 'failed' })).toEqual({
    phase: 'ready',
    list: ids(1),
    hasOlder: false,
  })
})

it('one changes in its place, and one goes', () => {
  const state = after(
    { type: 'loaded', list: ids(3, 2, 1), hasOlder: false },
    { type: 'changed', one: { id: 2, name: 'new' } },
    { type: 'gone', id: 3 },
  )

  expect(state.list).toEqual([{ id: 2, name: 'new' }, { id: 1 }])
})

it('what admins did is told in words', () => {
  const said = (action: string, target: string, detail: Record<string, unknown> = {}) =>
    auditText({ id: 1, action, target, detail, admin: { id: 1, name: 'Admin' }, created_at: '' })

  expect([
    said('change user', 'user 2', { is_blocked: true }),
    said('change user', 'user 2', { is_admin: false, is_blocked: false }),
    said('broadcast', 'chat', { event: 'Hello' }),
    said('retry all', 'failed jobs', { count: 1 }),
    said('something new', 'x'),
  ]).toEqual([
    'blocked user 2',
    'removed admin rights from and unblocked user 2',
    'sent Hello to chat',
    'retried 1 failed job',
    'something new: x',
  ])
})
