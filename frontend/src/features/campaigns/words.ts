/** The activity of a campaign in words. */
import type { CampaignActivity, CampaignStatus } from '@/api/records'
import { exactTime } from '@/shared/clock'
import { money } from '@/shared/money'

export const STATUS: Record<CampaignStatus, string> = { draft: 'Draft', active: 'Active', inactive: 'Stopped' }

const FIELDS: Record<string, string> = {
  name: 'name',
  description: 'description',
  budget: 'budget',
  status: 'status',
  starts_at: 'start',
  ends_at: 'end',
}

const ACTIONS: Record<string, string> = {
  created: 'created this campaign',
  updated: 'edited this campaign',
  budget: 'changed the budget',
  activated: 'activated this campaign',
  deactivated: 'stopped this campaign',
}

export const actionText = ({ action }: CampaignActivity): string => ACTIONS[action] ?? action

export function changeTexts({ changes }: CampaignActivity): string[] {
  return Object.entries(changes).map(
    ([field, [old, now]]) => `${FIELDS[field] ?? field}: ${value(field, old)} → ${value(field, now)}`,
  )
}

function value(field: string, given: unknown): string {
  if (given === null || given === '') return 'none'
  if (field === 'budget') return money(String(given))
  if (field === 'status') return STATUS[given as CampaignStatus] ?? String(given)
  if (field.endsWith('_at')) return exactTime(String(given))
  const text = String(given)
  return text.length > 60 ? `${text.slice(0, 60)}…` : text
}
