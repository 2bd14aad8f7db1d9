/** The channels of the chat. */
import type { Message, Notification, Profile } from '@/api/records'
import type { MembersEvent } from '@/features/presence/members'
import type { Subscription } from '@/realtime/subscriptions'
import type { useRealtime } from '@/realtime/store'
import { complete } from './content'
import { conversationChannel, GENERAL, personIn, roomWith, type RoomKey } from './rooms'
import type { ChatEvent } from './state'

export interface LivePorts {
  dispatch(event: ChatEvent): void
  typing(room: RoomKey, event: { user: Profile; typing: boolean }): void
  members(event: MembersEvent): void
  renamed(person: Profile): void
  /** A direct message arrived. */
  directMessage(sender: Profile, messageId: number): void
  /** Reload a list; resolve to the last event it includes. */
  reloadRoom(room: RoomKey): Promise<number>
  reloadConversations(): Promise<number>
  /** Reload everything that shows names; resolve to the last event on `presence-chat` that it includes. */
  reloadNames(): Promise<number>
}

const EVERYBODY = 'presence-chat'

/** The part of the realtime store that is used. */
type Realtime = Pick<ReturnType<typeof useRealtime>, 'follow' | 'join'>

export class LiveChannels {
  private readonly subscriptions = new Map<string, Subscription>()
  private readonly leavePresence: () => void

  constructor(
    private readonly realtime: Realtime,
    private readonly me: number,
    private readonly ports: LivePorts,
    namesUpTo: number,
  ) {
    this.subscriptions.set(
      'chat',
      realtime.follow({
        channel: 'chat',
        durable: { MessageSent: ({ message }) => this.arrived(message), ...this.changes },
        live: { UserTyping: (event) => ports.typing(GENERAL, event) },
        reload: () => ports.reloadRoom(GENERAL),
      }),
    )
    this.subscriptions.set(
      this.userChannel,
      realtime.follow({
        channel: this.userChannel,
        durable: {
          MessageDelivered: ({ message }) =>
            ports.dispatch({ type: 'messageWasDelivered', message: complete(message) }),
          MessageRead: ({ message }) => ports.dispatch({ type: 'messageWasRead', message: complete(message) }),
          NotificationCreated: ({ notification }) => this.notified(notification),
          UnreadChanged: ({ rooms }) => rooms.forEach((room) => ports.dispatch({ type: 'unreadChanged', room })),
        },
        reload: () => ports.reloadConversations(),
      }),
    )
    this.subscriptions.set(
      EVERYBODY,
      realtime.follow({
        channel: EVERYBODY,
        durable: { UserUpdated: ({ user }) => ports.renamed(user) },
        reload: () => ports.reloadNames(),
      }),
    )
    this.loaded(EVERYBODY, namesUpTo)
    this.leavePresence = realtime.join('chat', {
      here: (members) => ports.members({ type: 'here', members }),
      joining: (member) => ports.members({ type: 'joined', member }),
      leaving: (member) => ports.members({ type: 'left', id: Number(member.id), now: Date.now() }),
    })
  }

  /** The wire name of a room's channel. */
  wireName(room: RoomKey): string {
    const person = personIn(room)
    return person === null ? 'chat' : conversationChannel(this.me, person)
  }

  get userChannel(): `private-user.${number}` {
    return `private-user.${this.me}`
  }

  /** A list was loaded; it includes its channel's events up to `eventId`. */
  loaded(channel: string, eventId: number): void {
    this.subscriptions.get(channel)?.loaded(eventId)
  }

  stop(): void {
    this.leavePresence()
    for (const subscription of this.subscriptions.values()) subscription.stop()
    this.subscriptions.clear()
  }

  listenTo(personId: number): void {
    const room = roomWith(personId)
    const channel = conversationChannel(this.me, personId)
    if (this.subscriptions.has(channel)) return
    this.subscriptions.set(
      channel,
      this.realtime.follow({
        channel,
        durable: { PrivateMessageSent: ({ message }) => this.arrived(message), ...this.changes },
        live: { UserTyping: (event) => this.ports.typing(room, event) },
        reload: () => this.ports.reloadRoom(room),
      }),
    )
  }

  /** What happens to a message of a room after it was sent. */
  private get changes() {
    const changed = ({ message }: { message: Message }) => this.ports.dispatch({ type: 'messageChanged', message })
    return { MessageUpdated: changed, MessageDeleted: changed }
  }

  private arrived(message: Message): void {
    this.ports.dispatch({ type: 'messageArrived', message: complete(message) })
  }

  private notified({ type, data }: Notification): void {
    if (type === 'private_message') this.ports.directMessage(data.sender, data.message_id)
  }
}
