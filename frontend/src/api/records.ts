/** The records of the REST API and of the events: the same shape in both. */
import type { CampaignOut, NotificationOut, Profile, RealtimePlace, Self, TransactionOut, WalletOut } from './schema'

export type { Profile, RealtimePlace }

/** Oneself: what nobody else gets to see. */
export type Account = Self
export type Notification = NotificationOut
export type Campaign = CampaignOut
export type Wallet = WalletOut
export type Transaction = TransactionOut

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

/** A message that was searched for; `recipient` is null in the general chat. */
export interface FoundMessage extends Omit<Message, 'recipient'> {
  recipient: Profile | null
}

export interface Conversation {
  user: Profile
  last_message: Message | null
  unread_count: number
}

/** A durable event as the server kept it. */
export interface RecordedEvent {
  eventId: number
  /** The wire name, namespace included. */
  name: string
  payload: unknown
}

export interface RecordedEvents {
  events: RecordedEvent[]
  /** False when the server no longer keeps all that was asked for. */
  complete: boolean
}

export type CampaignStatus = 'draft' | 'active' | 'inactive'

export interface CampaignActivity {
  id: number
  action: string
  /** What it changed: the old and the new value of each field. */
  changes: Record<string, [unknown, unknown]>
  user: Profile
  created_at: string
}

export type MovementType = 'deposit' | 'withdrawal'

export interface Token {
  id: number
  name: string
  last_used_at: string | null
  expires_at: string | null
  created_at: string
}

/** With the secret, which is told this once. */
export interface NewToken extends Token {
  token: string
}

/** How the system is doing. Null: the part that knows did not answer. */
export interface Figures {
  at: string
  realtime: 'up' | 'down'
  connections: number | null
  channels: number | null
  nodes: number | null
  workers: number | null
  redis: string | null
  received_per_s: number | null
  published_per_s: number | null
  delivered_per_s: number | null
  publish_latency_ms: number | null
  queue_waiting: number
  queue_lag_s: number
  queue_workers: number
  failed_jobs: number
  users_online: number
  errors: number
}

export interface FigureSample {
  at: string
  figures: Partial<Omit<Figures, 'at'>>
}

export interface AdminUser extends Account {
  blocked_at: string | null
  is_online: boolean
  last_seen: string | null
}

export interface ConnectionsNow {
  connections: number
  users: { id: string; name: string | null; channels: string[] }[]
}

export interface ChannelCount {
  name: string
  subscription_count: number
  /** On presence channels only. */
  user_count: number | null
}

/** A recorded event. `payload` is null for what two people tell each other. */
export interface ListedEvent {
  id: number
  channel: string
  name: string
  payload: unknown
  state: string
  created_at: string
  sent_at: string | null
}

export interface FailedJob {
  id: number
  channel: string
  name: string
  /** JSON as it was recorded. */
  payload: string
  attempts: number
  error: string
  created_at: string
}

export interface AuditEntry {
  id: number
  action: string
  target: string
  detail: Record<string, unknown>
  admin: Profile
  created_at: string
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
