/** Unsaved edits of a campaign. */
import type { Campaign } from '@/api/records'

export interface CampaignDraft {
  fields: Record<string, string>
  /** The campaign as it was when the form was opened; null for a new one. */
  campaign: Campaign | null
}

/** The name a draft is saved under; `id` is null for a new campaign. */
export const draftName = (id: number | null): string => `campaign.${id ?? 'new'}`
