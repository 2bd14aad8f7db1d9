import { expect, it } from 'vitest'
import { draftsAfter, keepDraft, loadDrafts } from '@/features/chat/drafts'
import { keepQueue, loadQueue } from '@/features/chat/queue'
import { GENERAL, roomWith } from '@/features/chat/rooms'
import { shelf } from '../records'

it('keeps a draft per room and person', () => {
  const kept = shelf()
  keepDraft(kept, 1, GENERAL, 'half a')
  keepDraft(kept, 1, roomWith(2), 'dear Ben')

  expect(loadDrafts(kept, 1)).toEqual({ general: 'half a', 'with:2': 'dear Ben' })
  expect(loadDrafts(kept, 2)).toEqual({})
})

it('forgets a draft that is empty', () => {
  const kept = shelf()
  keepDraft(kept, 1, GENERAL, 'half a')
  keepDraft(kept, 1, GENERAL, '  ')

  expect(loadDrafts(kept, 1)).toEqual({})
  expect(draftsAfter({ general: 'x' }, GENERAL, '')).toEqual({})
})

it('bears a storage that was written by somebody else', () => {
  const kept = shelf()
  kept.setItem('smartlink.drafts.1', '[not json')
  kept.setItem('smartlink.outgoing.1', '{"a": 1}')

  expect(loadDrafts(kept, 1)).toEqual({})
  expect(loadQueue(kept, 1)).toEqual([])
})

it('waits again after a reload with what was under way, under the same key', () => {
  const kept = shelf()
  keepQueue(kept, 1, [
    {
      key: 'k',
      room: GENERAL,
      text: 'hi',
      status: 'sending',
      problem: null,
      tries: 1,
      made_at: '2026-05-01T09:00:00Z',
      echo: 4,
    },
  ])

  expect(loadQueue(kept, 1)).toMatchObject([{ key: 'k', status: 'waiting', echo: null }])
})
