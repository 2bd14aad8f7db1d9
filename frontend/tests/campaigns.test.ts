/** Campaigns plus the events that followed are the campaigns fetched again, in whatever order they come. */
import { describe, expect, it } from 'vitest'
import type { Campaign } from '@/api/records'
import { loadedAgain, newer, without, withCampaign, withOlder, type CampaignList } from '@/features/campaigns/state'
import { changeTexts } from '@/features/campaigns/words'

const at = '2026-01-01T00:00:00Z'
const one = (id: number, version = 1, name = `v${version}`): Campaign => ({
  id,
  user_id: 1,
  name,
  description: null,
  status: 'draft',
  budget: '1.00',
  starts_at: null,
  ends_at: null,
  version,
  created_at: at,
  updated_at: at,
})

describe('a list of campaigns', () => {
  it('takes the newest version, whatever comes first', () => {
    const list: CampaignList = [one(2), one(1)]
    const inOrder = [one(1, 2), one(1, 3)].reduce<CampaignList>((now, come) => withCampaign(now, come, false), list)
    const reversed = [one(1, 3), one(1, 2)].reduce<CampaignList>((now, come) => withCampaign(now, come, false), list)

    expect(inOrder).toEqual([one(2), one(1, 3)])
    expect(reversed).toEqual(inOrder)
  })

  it('gains what is new once, and loses what is gone', () => {
    const list = withCampaign(withCampaign([one(1)], one(2), true), one(2), true)

    expect(list.map(({ id }) => id)).toEqual([2, 1])
    expect(without(list, 1).map(({ id }) => id)).toEqual([2])
    expect(withCampaign([one(1)], one(2), false)).toEqual([one(1)])
  })

  it('loaded again keeps what an event told meanwhile', () => {
    expect(loadedAgain([one(1, 3)], [one(2), one(1, 2)])).toEqual([one(2), one(1, 3)])
  })

  it('shows nothing twice when older ones come', () => {
    expect(withOlder([one(3), one(2)], [one(2), one(1)]).map(({ id }) => id)).toEqual([3, 2, 1])
  })
})

it('one campaign is the newest of those that came', () => {
  expect(newer(null, one(1, 1)).version).toBe(1)
  expect(newer(one(1, 2), one(1, 1)).version).toBe(2)
})

it('what was changed is told in words', () => {
  const changes: Record<string, [unknown, unknown]> = {
    name: ['Old', 'New'],
    description: [null, 'Text'],
    status: ['draft', 'active'],
  }
  const texts = changeTexts({ id: 1, action: 'updated', changes, user: { id: 1, name: 'Ana' }, created_at: at })

  expect(texts).toEqual(['name: Old → New', 'description: none → Text', 'status: Draft → Active'])
})
