import { expect, it } from 'vitest'
import { LEAVE_HIDDEN_MS, membersAfter, type Member, type MembersEvent } from '@/features/presence/members'
import { ana, ben } from '../records'

const after = (...events: MembersEvent[]) => events.reduce<readonly Member[]>(membersAfter, [])
const names = (members: readonly Member[]) => members.map(({ name }) => name)

it('lists members by name', () => {
  expect(names(after({ type: 'here', members: [ben, ana] }))).toEqual(['Ana', 'Ben'])
})

it('hides a leave for as long as a reload takes', () => {
  const left = after({ type: 'here', members: [ana, ben] }, { type: 'left', id: 2, now: 1000 })

  expect(names(membersAfter(left, { type: 'swept', now: 1000 + LEAVE_HIDDEN_MS - 1 }))).toEqual(['Ana', 'Ben'])
  expect(names(membersAfter(left, { type: 'swept', now: 1000 + LEAVE_HIDDEN_MS }))).toEqual(['Ana'])
})

it('forgets the leave of somebody who is back', () => {
  const back = after(
    { type: 'here', members: [ana, ben] },
    { type: 'left', id: 2, now: 1000 },
    { type: 'joined', member: ben },
    { type: 'swept', now: 60_000 },
  )

  expect(names(back)).toEqual(['Ana', 'Ben'])
})

it('believes the list that comes with a subscription', () => {
  expect(names(after({ type: 'here', members: [ana, ben] }, { type: 'here', members: [ana] }))).toEqual(['Ana'])
})
