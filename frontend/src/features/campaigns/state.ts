/** The list of campaigns. Pure: versions decide what is newer, in any order of arrival. */
import type { Campaign } from '@/api/records'

/** Newest first. */
export type CampaignList = readonly Campaign[]

export const newer = (known: Campaign | null, incoming: Campaign): Campaign =>
  known !== null && known.version > incoming.version ? known : incoming

/** Updates a campaign in the list. An unlisted one is added only if `isNew`. */
export function withCampaign(list: CampaignList, incoming: Campaign, isNew: boolean): CampaignList {
  const known = list.find(({ id }) => id === incoming.id)
  if (!known) return isNew ? [incoming, ...list].sort((one, other) => other.id - one.id) : list
  return list.map((one) => (one.id === incoming.id ? newer(one, incoming) : one))
}

export const without = (list: CampaignList, id: number): CampaignList => list.filter((one) => one.id !== id)

/** A reloaded list: newer states from events are kept. */
export function loadedAgain(list: CampaignList, incoming: CampaignList): CampaignList {
  return incoming.map((one) => newer(list.find(({ id }) => id === one.id) ?? null, one))
}

export function withOlder(list: CampaignList, older: CampaignList): CampaignList {
  const known = new Set(list.map(({ id }) => id))
  return [...list, ...older.filter(({ id }) => !known.has(id))]
}
