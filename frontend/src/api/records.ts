/** The records of the REST API and of the events: the same shape in both. */
import type { ConsoleEntry } from './events'
import type * as schema from './schema'

export type { ConsoleEntry } from './events'
export type { AdminUser, FailedJob, Figures, FoundMessage, Profile, RealtimeEndpoint, RoomUnread } from './schema'

type Profile = schema.Profile

/** The own account, with fields that others do not see. */
export type Account = schema.Self
export type Notification = schema.NotificationOut
export type Campaign = schema.CampaignOut
export type Wallet = schema.WalletOut
export type Transaction = schema.TransactionOut
export type Token = schema.TokenOut
/** With the secret, which is returned only once. */
export type NewToken = schema.NewTokenOut
export type ConnectionsNow = schema.ConnectionsOut
export type ChannelCount = schema.ChannelOut
export type ListedEvent = schema.Event
export type MessageVersion = schema.MessageVersionOut
export type AuditEntry = schema.AuditOut
/** `recipient_id` is null in the general chat; `recipient` is on direct messages only. */
export type Message = schema.MessageOut & { recipient?: Profile | null }

/** What is unread is asked for apart: `RoomUnread` also says where it begins. */
export interface Conversation {
  user: Profile
  last_message: Message | null
}

/** A durable event as the server recorded it. */
export interface RecordedEvent {
  eventId: number
  /** The wire name, namespace included. */
  name: string
  payload: unknown
}

export interface RecordedEvents {
  events: RecordedEvent[]
  /** False if the server no longer has all requested events. */
  complete: boolean
}

export type CampaignStatus = 'draft' | 'active' | 'inactive'

export interface CampaignActivity {
  id: number
  action: string
  /** The old and the new value of each changed field. */
  changes: Record<string, [unknown, unknown]>
  user: Profile
  created_at: string
}

export type MovementType = 'deposit' | 'withdrawal'

export interface FigureSample {
  at: string
  figures: Partial<Omit<schema.Figures, 'at'>>
}

export type ConsoleKind = ConsoleEntry['kind']
