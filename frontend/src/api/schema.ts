/** The records of the REST API, written from its description: `make reference`. */

/** A change of one's campaign by someone else. */
export interface AboutCampaign {
  campaign_id: number
  name: string
  action: 'updated' | 'budget' | 'activated' | 'deactivated' | 'deleted'
  by: Profile
}

/** A direct message that was received; `excerpt` is how it begins, empty once it was deleted. */
export interface AboutMessage {
  message_id: number
  sender: Profile
  excerpt: string
}

/** A transaction of one's wallet, and the balance after it. */
export interface AboutTransaction {
  transaction_id: number
  amount: string
  currency: string
  balance: string
}

/** An action on a campaign: by whom, when, and its changes, `{field: [old, new]}`. */
export interface ActivityOut {
  id: number
  action: string
  changes: Record<string, unknown[]>
  user: Profile
  created_at: string
}

/** A user as admins see them. */
export interface AdminUser {
  id: number
  name: string
  email: string
  is_admin: boolean
  blocked_at: string | null
  is_online: boolean
  last_seen: string | null
  created_at: string
}

/** An action of an admin. */
export interface AuditOut {
  id: number
  action: string
  target: string
  detail: Record<string, unknown>
  admin: Profile
  created_at: string
}

/** Changes to a campaign. Omitted fields stay as they are. `version` is the expected one, if given. */
export interface CampaignChange {
  name?: string
  description?: string | null
  budget?: string | number
  status?: 'draft' | 'active' | 'inactive'
  starts_at?: string | null
  ends_at?: string | null
  version?: number | null
}

/** A notification of a changed campaign. */
export interface CampaignNotification {
  id: number
  read_at: string | null
  created_at: string
  type: 'campaign_changed'
  data: AboutCampaign
}

/** A campaign. */
export interface CampaignOut {
  id: number
  user_id: number
  name: string
  description: string | null
  status: 'draft' | 'active' | 'inactive'
  budget: string
  starts_at: string | null
  ends_at: string | null
  version: number
  created_at: string
  updated_at: string
}

/** The new text of a message. */
export interface ChangedMessage {
  message: string
}

/** An occupied channel. `user_count` on presence channels only. */
export interface ChannelOut {
  name: string
  subscription_count: number
  user_count: number | null
}

/** Changed by someone else; `version` is the current one. */
export interface ConflictError {
  /** What went wrong, for people. */
  message: string
  version: number
}

/** The number of connections, and the users on presence channels. */
export interface ConnectionsOut {
  connections: number
  users: Who[]
}

/** A direct conversation: the other user, the last message, and the number of unread ones. */
export interface Conversation {
  user: Profile
  last_message: DirectMessageOut
  unread_count: number
}

/** Credentials to sign in with. */
export interface Credentials {
  email: string
  password: string
}

/** A direct message and its recipient. */
export interface DirectMessageOut {
  id: number
  user_id: number
  recipient_id: number | null
  message: string
  version: number
  edited_at: string | null
  deleted_at: string | null
  is_read: boolean
  read_at: string | null
  delivered_at: string | null
  created_at: string
  updated_at: string
  user: Profile
  recipient: Profile
}

/** An error. */
export interface Error {
  /** What went wrong, for people. */
  message: string
}

/** A recorded event. `payload` is null for direct messages, which admins may not read. */
export interface Event {
  id: number
  channel: string
  name: string
  payload: unknown
  state: string
  created_at: string
  sent_at: string | null
}

/** A failed event; `error` is the reason. */
export interface FailedJob {
  id: number
  channel: string
  name: string
  payload: string
  attempts: number
  error: string
  created_at: string
}

/** The system's figures. Null: the component that knows the figure did not answer. */
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
  /** Mean time from commit to acceptance, last minute */
  publish_latency_ms: number | null
  queue_waiting: number
  queue_lag_s: number
  queue_workers: number
  failed_jobs: number
  users_online: number
  /** 5xx responses of this process since it started */
  errors: number
}

/** A search result; `recipient` is null in general chat. */
export interface FoundMessage {
  id: number
  user_id: number
  recipient_id: number | null
  message: string
  version: number
  edited_at: string | null
  deleted_at: string | null
  is_read: boolean
  read_at: string | null
  delivered_at: string | null
  created_at: string
  updated_at: string
  user: Profile
  recipient: Profile | null
}

/** Invalid input: which fields, and why. */
export interface InvalidError {
  /** What went wrong, for people. */
  message: string
  errors: Record<string, string[]>
}

/** An event written by hand: its channel's full name, its name, and an object as its payload. */
export interface ManualEvent {
  channel: string
  event: string
  data?: Record<string, unknown>
}

/** A notification of a direct message. */
export interface MessageNotification {
  id: number
  read_at: string | null
  created_at: string
  type: 'private_message'
  data: AboutMessage
}

/**
 * A message and its author. `delivered_at` and `read_at` are of direct messages only.
 *
 * `version` rises when it is edited or deleted; the text of a deleted message is empty.
 */
export interface MessageOut {
  id: number
  user_id: number
  recipient_id: number | null
  message: string
  version: number
  edited_at: string | null
  deleted_at: string | null
  is_read: boolean
  read_at: string | null
  delivered_at: string | null
  created_at: string
  updated_at: string
  user: Profile
}

/** The text that a message had until `replaced_at`; null for the present one. */
export interface MessageVersionOut {
  version: number
  message: string
  replaced_at: string | null
}

/** An event of a channel; `event` is its name, `data` its payload. */
export interface MissedEvent {
  id: number
  event: string
  channel: string
  data: Record<string, unknown>
  created_at: string
}

/** Events of a channel. `complete`: no later event has been deleted. */
export interface MissedEvents {
  events: MissedEvent[]
  complete: boolean
}

/** The amount of a deposit or withdrawal. */
export interface Movement {
  amount: string | number
}

/** A new budget, and the expected version. */
export interface NewBudget {
  budget: string | number
  version?: number | null
}

/** A campaign to create, as a draft or active. */
export interface NewCampaign {
  name: string
  description?: string | null
  budget: string | number
  status?: 'draft' | 'active'
  starts_at?: string | null
  ends_at?: string | null
}

/** A message to one user. */
export interface NewDirectMessage {
  recipient_id: number
  message: string
}

/** A message to general chat. */
export interface NewMessage {
  message: string
}

/**
 * A token to create. `abilities` defaults to all (`*`); `expires_at` must be in the future.
 *
 * A token cannot create one with more abilities or a longer life than its own.
 */
export interface NewToken {
  name: string
  abilities?: ('*' | 'user:read' | 'user:write' | 'tokens:read' | 'tokens:write' | 'chat:read' | 'chat:write' | 'notifications:read' | 'notifications:write' | 'campaigns:read' | 'campaigns:write' | 'wallet:read' | 'wallet:write' | 'admin:read' | 'admin:write')[]
  expires_at?: string | null
}

/** A new token, with its secret. */
export interface NewTokenOut {
  id: number
  name: string
  abilities: string[]
  last_used_at: string | null
  expires_at: string | null
  created_at: string
  token: string
}

/** A notification. */
export type NotificationOut = MessageNotification | CampaignNotification | TransactionNotification

/** The figures now, and over the last hour, oldest first. */
export interface Overview {
  now: Figures
  history: Sample[]
}

/** A new password, and the one it replaces. */
export interface PasswordChange {
  current_password: string
  password: string
}

/** What everyone may see of a user. */
export interface Profile {
  id: number
  name: string
}

/** Changes to your profile. Omitted fields stay as they are; a new address requires the password. */
export interface ProfileChange {
  name?: string | null
  email?: string | null
  current_password?: string | null
}

/** How far you have read a room: general chat (`peer_id` null) or a direct conversation. */
export interface ReadUpTo {
  peer_id?: number | null
  last_read_id: number
}

/** How browsers reach the realtime server. */
export interface RealtimeEndpoint {
  key: string
  host: string
  port: number
  scheme: 'http' | 'https'
}

/** A registration. */
export interface Registration {
  name: string
  email: string
  password: string
}

/**
 * What you have not read of a room: of general chat (`peer_id` null) or a direct conversation.
 *
 * `unread_count` is exact up to 100, which means 100 or more. `last_message_id` is the newest message that was
 * considered: later ones are not counted.
 */
export interface RoomUnread {
  peer_id: number | null
  unread_count: number
  first_unread_id: number | null
  last_message_id: number
}

/** The figures at one time within the last hour. */
export interface Sample {
  at: string
  figures: Record<string, unknown>
}

/** What users see of themselves. */
export interface Self {
  id: number
  name: string
  email: string
  is_admin: boolean
  created_at: string
}

/** The signed-in user and their new token, which is shown only once. */
export interface SignedIn {
  user: Self
  token: string
}

/** The user signed in on a page; the session is in the cookie. */
export interface SignedInPage {
  user: Self
}

/** Done. */
export interface Status {
  status?: 'ok'
}

/** The expected version of a campaign to activate or deactivate. */
export interface StatusChange {
  version?: number | null
}

/** The error for a message to yourself. */
export interface ToOneself {
  error?: 'Cannot send message to yourself'
}

/** A token, without its secret. */
export interface TokenOut {
  id: number
  name: string
  abilities: string[]
  last_used_at: string | null
  expires_at: string | null
  created_at: string
}

/** A notification of a deposit or withdrawal. */
export interface TransactionNotification {
  id: number
  read_at: string | null
  created_at: string
  type: 'deposit' | 'withdrawal'
  data: AboutTransaction
}

/** A deposit or withdrawal. */
export interface TransactionOut {
  id: number
  type: 'deposit' | 'withdrawal'
  amount: string
  balance_after: string
  version: number
  created_at: string
}

/** Whether you are typing, in general chat or to one user. */
export interface Typing {
  typing: boolean
  recipient_id?: number | null
}

/** The portal can serve. */
export interface Up {
  status?: 'ok' | 'degraded'
  problems?: string[] | null
}

/** Changes to a user. Omitted fields stay as they are. */
export interface UserChange {
  is_admin?: boolean | null
  is_blocked?: boolean | null
}

/** A wallet. `version` counts its transactions: a client with a lower one is out of date. */
export interface WalletOut {
  balance: string
  currency: string
  version: number
}

/** A user on presence channels. */
export interface Who {
  id: string
  name: string | null
  channels: string[]
}
