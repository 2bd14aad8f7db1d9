/** The records of the REST API and of the events: the same shape in both. */
import type * as schema from './schema'

export type { AdminUser, FailedJob, FoundMessage, Profile, RealtimePlace } from './schema'

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
export type AuditEntry = schema.AuditOut
/** A figure is null if its source did not answer. The schema allows leaving figures out; the server never does. */
export type Figures = Required<schema.Figures>

export interface Message {
  id: number
  user_id: number
  /** Null in the general chat. */
  recipient_id: number | null
  message: string
  is_read: boolean
  read_at: string | null
  created_at: string
  updated_at: string
  user: Profile
  /** On direct messages only. */
  recipient?: Profile
}

export interface Conversation {
  user: Profile
  last_message: Message | null
  unread_count: number
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
  figures: Partial<Omit<Figures, 'at'>>
}

export type ConsoleKind = 'event' | 'join' | 'leave' | 'occupied' | 'vacated' | 'client_event' | 'error' | 'audit'

/** One line of the live console. */
export interface ConsoleEntry {
  kind: ConsoleKind
  at: string
  channel: string | null
  name: string | null
  detail: Record<string, unknown>
}
