/** What somebody is writing of a campaign. */
import type { Campaign } from '@/api/records'

export interface CampaignDraft {
  fields: Record<string, string>
  /** The campaign as it was when the form was opened; null for a new one. */
  campaign: Campaign | null
}

/** Under which name it is kept; null for a new campaign. */
export const draftName = (id: number | null): string => `campaign.${id ?? 'new'}`
