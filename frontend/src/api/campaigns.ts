/** Campaigns: the own ones; for admins, all. */
import { api, lastEventId } from './client'
import type { Campaign, CampaignActivity, CampaignStatus } from './records'

export const PAGE = 50

export interface CampaignFields {
  name: string
  description: string | null
  budget: string
  starts_at: string | null
  ends_at: string | null
}

export async function campaigns(
  status: CampaignStatus | null,
  before?: number,
): Promise<{ list: Campaign[]; eventId: number }> {
  const query = new URLSearchParams({
    limit: String(PAGE),
    ...(status !== null && { status }),
    ...(before !== undefined && { before: String(before) }),
  })
  const { body, headers } = await api.get<Campaign[]>(`/api/campaigns?${query}`)
  return { list: body, eventId: lastEventId(headers) }
}

export async function campaign(id: number): Promise<{ campaign: Campaign; eventId: number }> {
  const { body, headers } = await api.get<Campaign>(`/api/campaigns/${id}`)
  return { campaign: body, eventId: lastEventId(headers) }
}

export async function activity(id: number, before?: number): Promise<CampaignActivity[]> {
  const query = before === undefined ? '' : `?before=${before}`
  return (await api.get<CampaignActivity[]>(`/api/campaigns/${id}/activity${query}`)).body
}

export async function createCampaign(fields: CampaignFields): Promise<Campaign> {
  return (await api.post<Campaign>('/api/campaigns', fields)).body
}

/** Raises Conflict if the campaign was changed after `version`. */
export async function changeCampaign(id: number, fields: CampaignFields, version: number): Promise<Campaign> {
  return (await api.patch<Campaign>(`/api/campaigns/${id}`, { ...fields, version })).body
}

export async function setStatus(id: number, status: 'active' | 'inactive', version: number): Promise<Campaign> {
  const verb = status === 'active' ? 'activate' : 'deactivate'
  return (await api.post<Campaign>(`/api/campaigns/${id}/${verb}`, { version })).body
}

export async function deleteCampaign(id: number): Promise<void> {
  await api.delete(`/api/campaigns/${id}`)
}
