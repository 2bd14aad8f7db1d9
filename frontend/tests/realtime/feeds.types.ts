/** Feeds take only the events of their channel, with the payloads that the server describes. Checked by `vue-tsc`. */
import type { ChannelName, Feed } from '@/realtime/subscriptions'

declare function follow<C extends ChannelName>(feed: Feed<C>): void
declare function reload(): Promise<number>

follow({ channel: 'chat', durable: { MessageSent: ({ message }) => message.user.name }, reload })
follow({ channel: `private-user.${1}`, live: { NotificationRead: ({ notificationId }) => notificationId } })

// @ts-expect-error no such channel
follow({ channel: 'chats' })
// @ts-expect-error an event of another channel
follow({ channel: 'chat', durable: { BudgetChanged: () => undefined }, reload })
// @ts-expect-error a live event: there is no catching up on it
follow({ channel: 'chat', durable: { UserTyping: () => undefined }, reload })
// @ts-expect-error no way to reload the list
follow({ channel: 'chat', durable: { MessageSent: () => undefined } })
// @ts-expect-error not a field of the payload
follow({ channel: 'private-admin', live: { AdminEvent: ({ entry }) => entry.title } })
