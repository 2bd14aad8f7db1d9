/** The records of the REST API, written from its description: `make reference`. */

/** One thing that was done to a campaign: by whom, when, and what it changed, `{field: [old, new]}`. */
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

/** One thing that an admin did. */
export interface AuditOut {
  id: number
  action: string
  target: string
  detail: Record<string, unknown>
  admin: Profile
  created_at: string
}

/** What is to change; what is left out stays. `version`: refuse when it is not the present one. */
export interface CampaignChange {
  name?: string
  description?: string | null
  budget?: string | number
  status?: 'draft' | 'active' | 'inactive'
  starts_at?: string | null
  ends_at?: string | null
  version?: number | null
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

/** An occupied channel. `user_count` on presence channels only. */
export interface ChannelOut {
  name: string
  subscription_count: number
  user_count: number | null
}

/** Somebody else was first; `version` is the present one. */
export interface ConflictError {
  /** What happened, for people. */
  message: string
  version: number
}

/** How many connections there are, and which users are on which presence channels. */
export interface ConnectionsOut {
  connections: number
  users: Who[]
}

/** A direct conversation: with whom, what was said last, how much of it the caller has not read. */
export interface Conversation {
  user: Profile
  last_message: DirectMessageOut
  unread_count: number
}

/** What it takes to sign in. */
export interface Credentials {
  email: string
  password: string
}

/** A direct message, with whom it is for. */
export interface DirectMessageOut {
  id: number
  user_id: number
  recipient_id: number | null
  message: string
  is_read: boolean
  read_at: string | null
  created_at: string
  updated_at: string
  user: Profile
  recipient: Profile
}

/** An error. */
export interface Error {
  /** What happened, for people. */
  message: string
}

/** A recorded event. What two people tell each other is not shown: `payload` is null there. */
export interface Event {
  id: number
  channel: string
  name: string
  payload: unknown
  state: string
  created_at: string
  sent_at: string | null
}

/** An event that the service refused; `error` is what it said. */
export interface FailedJob {
  id: number
  channel: string
  name: string
  payload: string
  attempts: number
  error: string
  created_at: string
}

/** How the system is doing. Null: the part that knows did not answer. */
export interface Figures {
  at: string
  realtime: 'up' | 'down'
  connections?: number | null
  channels?: number | null
  nodes?: number | null
  workers?: number | null
  redis?: string | null
  received_per_s?: number | null
  published_per_s?: number | null
  delivered_per_s?: number | null
  /** Commit to acceptance, mean of the last minute */
  publish_latency_ms?: number | null
  queue_waiting: number
  queue_lag_s: number
  queue_workers: number
  failed_jobs: number
  users_online: number
  /** Answers 5xx of this process since it started */
  errors: number
}

/** A message that was searched for; `recipient` is null in general chat. */
export interface FoundMessage {
  id: number
  user_id: number
  recipient_id: number | null
  message: string
  is_read: boolean
  read_at: string | null
  created_at: string
  updated_at: string
  user: Profile
  recipient: Profile | null
}

/** Input that does not fit: which fields, and why. */
export interface InvalidError {
  /** What happened, for people. */
  message: string
  errors: Record<string, string[]>
}

/** An event written by hand: the wire name of its channel, its own wire name, and an object as payload. */
export interface ManualEvent {
  channel: string
  event: string
  data?: Record<string, unknown>
}

/** A message, with who wrote it. */
export interface MessageOut {
  id: number
  user_id: number
  recipient_id: number | null
  message: string
  is_read: boolean
  read_at: string | null
  created_at: string
  updated_at: string
  user: Profile
}

/** An event of a channel. `event` is its wire name, `data` its payload. */
export interface MissedEvent {
  id: number
  event: string
  channel: string
  data: Record<string, unknown>
  created_at: string
}

/** Events of a channel. `complete`: nothing after what was asked for has been forgotten. */
export interface MissedEvents {
  events: MissedEvent[]
  complete: boolean
}

/** How much is to move. */
export interface Movement {
  amount: string | number
}

/** A budget, and the version it is meant for. */
export interface NewBudget {
  budget: string | number
  version?: number | null
}

/** A campaign to be; it begins as a draft unless it is to run at once. */
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

/** A message to everybody. */
export interface NewMessage {
  message: string
}

/**
 * A token asked for. It can do all (`*`), unless it says what; `expires_at` is in the future.
 *
 * It can do, and lasts, no more than the token that asks for it.
 */
export interface NewToken {
  name: string
  abilities?: ('*' | 'user:read' | 'user:write' | 'tokens:read' | 'tokens:write' | 'chat:read' | 'chat:write' | 'notifications:read' | 'notifications:write' | 'campaigns:read' | 'campaigns:write' | 'wallet:read' | 'wallet:write' | 'admin:read' | 'admin:write')[]
  expires_at?: string | null
}

/** A token in the answer that creates it: with the secret, once. */
export interface NewTokenOut {
  id: number
  name: string
  abilities: string[]
  last_used_at: string | null
  expires_at: string | null
  created_at: string
  token: string
}

/** One notification. */
export interface NotificationOut {
  id: number
  type: string
  data: Record<string, unknown>
  read_at: string | null
  created_at: string
}

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

/** What everybody may see of a user. */
export interface Profile {
  id: number
  name: string
}

/** What users change of themselves; what is left out stays. A new address needs the password. */
export interface ProfileChange {
  name?: string | null
  email?: string | null
  current_password?: string | null
}

/** Where browsers find the realtime server. */
export interface RealtimePlace {
  key: string
  host: string
  port: number
  scheme: 'http' | 'https'
}

/** What it takes to register. */
export interface Registration {
  name: string
  email: string
  password: string
}

/** The figures at one time of the last hour. */
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

/** The answer to signing in: the token is shown this once. */
export interface SignedIn {
  user: Self
  token: string
}

/** The answer to a page signing in; the session is in the cookie. */
export interface SignedInPage {
  user: Self
}

/** Done. */
export interface Status {
  status?: 'ok'
}

/** The version that activating or deactivating is meant for. */
export interface StatusChange {
  version?: number | null
}

/** The answer to a message that one sends to oneself. */
export interface ToOneself {
  error?: 'Cannot send message to yourself'
}

/** A token as its owner sees it later. */
export interface TokenOut {
  id: number
  name: string
  abilities: string[]
  last_used_at: string | null
  expires_at: string | null
  created_at: string
}

/** One movement. */
export interface TransactionOut {
  id: number
  type: 'deposit' | 'withdrawal'
  amount: string
  balance_after: string
  version: number
  created_at: string
}

/** Whether the caller types, to everybody or to one user. */
export interface Typing {
  typing: boolean
  recipient_id?: number | null
}

/** The portal can serve. */
export interface Up {
  status?: 'ok' | 'degraded'
  problems?: string[] | null
}

/** What is to change of a user; what is left out stays. */
export interface UserChange {
  is_admin?: boolean | null
  is_blocked?: boolean | null
}

/** A wallet. `version` counts its movements: a page that knows an older one is behind. */
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
