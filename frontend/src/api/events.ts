/** The events that clients receive, written from their description: `make reference`. */
import type { CampaignOut, DirectMessageOut, Figures, MessageOut, NotificationOut, Profile, RoomUnread } from './schema'

/** One line of the live console. */
export interface ConsoleEntry {
  kind: 'event' | 'join' | 'leave' | 'occupied' | 'vacated' | 'client_event' | 'error' | 'audit'
  at: string
  channel: string | null
  name: string | null
  detail: Record<string, unknown>
}

/** The payload of each event, by the name that Echo listens for. */
export interface EventPayloads {
  /** A message was sent to general chat. */
  MessageSent: {
    message: MessageOut
    eventId: number
  }
  /** `user` started or stopped typing, in general chat or to one user. */
  UserTyping: {
    user: Profile
    typing: boolean
  }
  /** A message was edited. `version` rises with each change, so that clients can ignore older events. */
  MessageUpdated: {
    message: MessageOut
    eventId: number
  }
  /** A message was deleted by its author; its text is empty. */
  MessageDeleted: {
    message: MessageOut
    eventId: number
  }
  /** `user`'s page or application has received a direct message. Sent to the message's sender. */
  MessageDelivered: {
    message: DirectMessageOut
    user: Profile
    eventId: number
  }
  /** `user` has read a direct message. Sent to the message's sender. */
  MessageRead: {
    message: DirectMessageOut
    user: Profile
    eventId: number
  }
  /** `user` has read messages, or marked some as unread: what is unread now in these rooms. */
  UnreadChanged: {
    rooms: RoomUnread[]
    user: Profile
    eventId: number
  }
  /** A direct message was sent. */
  PrivateMessageSent: {
    message: DirectMessageOut
    eventId: number
  }
  /** A user came online with their first connection. */
  UserJoined: {
    id: number
    name: string
  }
  /** A user went offline with their last connection. */
  UserLeft: {
    id: number
    name: string
  }
  /** A user changed their name. */
  UserUpdated: {
    user: Profile
    eventId: number
  }
  /** The user has become an admin, or is one no more. */
  RightsChanged: {
    is_admin: boolean
  }
  /** `user` has a new notification. */
  NotificationCreated: {
    notification: NotificationOut
    user: Profile
    eventId: number
  }
  /** A new notification, in the form that Echo's `.notification()` listens for. */
  '.Illuminate\\Notifications\\Events\\BroadcastNotificationCreated': {
    message_id: number
    sender: Profile
    excerpt: string
    id: number
    type: string
    eventId: number
  }
  /** What a notification of `user` is about was edited or deleted: this is the notification now. */
  NotificationChanged: {
    notification: NotificationOut
    user: Profile
    eventId: number
  }
  /** `user` has read a notification. */
  NotificationRead: {
    notificationId: number
    user: Profile
    eventId: number
  }
  /** `user` has read several notifications: those listed, or all up to `upTo` if the list is empty. */
  NotificationsRead: {
    notificationIds: number[]
    upTo: number
    user: Profile
    eventId: number
  }
  /** A campaign was created. */
  CampaignCreated: {
    campaign: CampaignOut
    eventId: number
  }
  /** A campaign was changed. */
  CampaignUpdated: {
    campaign: CampaignOut
    eventId: number
  }
  /** A campaign was activated. */
  CampaignActivated: {
    campaign: CampaignOut
    eventId: number
  }
  /** A campaign was deactivated. */
  CampaignDeactivated: {
    campaign: CampaignOut
    eventId: number
  }
  /** A campaign was deleted; `campaign` is its last state. */
  CampaignDeleted: {
    campaign: CampaignOut
    eventId: number
  }
  /** A campaign's budget was changed. */
  BudgetChanged: {
    campaign: CampaignOut
    oldBudget: string
    newBudget: string
    eventId: number
  }
  /** Money was deposited. */
  DepositCompleted: {
    user: Profile
    amount: string
    transactionId: number
    eventId: number
  }
  /** Money was withdrawn. */
  WithdrawalProcessed: {
    user: Profile
    amount: string
    transactionId: number
    eventId: number
  }
  /** A balance changed. `version` rises with each change, so that clients can ignore older events. */
  BalanceUpdated: {
    user: Profile
    oldBalance: string
    newBalance: string
    version: number
    eventId: number
  }
  /** The system's figures, every second while an admin has the page open. */
  AdminFigures: {
    figures: Figures
  }
  /** A new entry in the live console. */
  AdminEvent: {
    entry: ConsoleEntry
  }
}

/** The names of the events on each channel. */
export interface ChannelEvents {
  /** General chat. Subscribers: Everyone with the app's key. */
  chat: 'MessageSent' | 'UserTyping' | 'MessageUpdated' | 'MessageDeleted'
  /** Who is online. Subscribers: Signed-in users. */
  'presence-chat': 'UserJoined' | 'UserLeft' | 'UserUpdated'
  /** A user's own events. Subscribers: That user. */
  [channel: `private-user.${number}`]: 'MessageDelivered' | 'MessageRead' | 'UnreadChanged' | 'RightsChanged' | 'NotificationCreated' | '.Illuminate\\Notifications\\Events\\BroadcastNotificationCreated' | 'NotificationChanged' | 'NotificationRead' | 'NotificationsRead' | 'CampaignCreated' | 'CampaignDeleted'
  /** A direct conversation. Subscribers: Those two users. */
  [channel: `private-chat.${number}.${number}`]: 'UserTyping' | 'MessageUpdated' | 'MessageDeleted' | 'PrivateMessageSent'
  /** A campaign. Subscribers: Its owner and admins. */
  [channel: `private-campaign.${number}`]: 'CampaignUpdated' | 'CampaignActivated' | 'CampaignDeactivated' | 'BudgetChanged'
  /** A user's wallet. Subscribers: That user. */
  [channel: `private-financial.${number}`]: 'DepositCompleted' | 'WithdrawalProcessed' | 'BalanceUpdated'
  /** For admins. Subscribers: Admins. */
  'private-admin': 'AdminFigures' | 'AdminEvent'
}

/** Recorded events: those with an `eventId`. */
export type DurableEvent = 'MessageSent' | 'MessageUpdated' | 'MessageDeleted' | 'MessageDelivered' | 'MessageRead' | 'UnreadChanged' | 'PrivateMessageSent' | 'UserUpdated' | 'NotificationCreated' | '.Illuminate\\Notifications\\Events\\BroadcastNotificationCreated' | 'NotificationChanged' | 'NotificationRead' | 'NotificationsRead' | 'CampaignCreated' | 'CampaignUpdated' | 'CampaignActivated' | 'CampaignDeactivated' | 'CampaignDeleted' | 'BudgetChanged' | 'DepositCompleted' | 'WithdrawalProcessed' | 'BalanceUpdated'
