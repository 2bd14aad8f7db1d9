/** The channels of the chat. */
import type { Message, Profile, RecordedEvent } from '@/api/records'
import type { MembersEvent } from '@/features/presence/members'
import type { Line } from '@/realtime/lines'
import type { useRealtime } from '@/realtime/store'
import { conversationChannel, GENERAL, personIn, roomWith, type RoomKey } from './rooms'
import type { ChatEvent } from './state'

export interface LivePorts {
  dispatch(event: ChatEvent): void
  typing(room: RoomKey, word: { user: Profile; typing: boolean }): void
  members(event: MembersEvent): void
  renamed(person: Profile): void
  /** A direct message arrived. */
  directMessage(sender: Profile, messageId: number): void
  /** A notification of a message was read, maybe on another page. */
  readElsewhere(): void
  /** Reload a list; resolve to the last event it includes. */
  reloadRoom(room: RoomKey): Promise<number>
  reloadConversations(): Promise<number>
  /** Reload everything that shows names; resolve to the last event on `presence-chat` that it includes. */
  reloadNames(): Promise<number>
}

const EVERYBODY = 'presence-chat'

type Realtime = Pick<ReturnType<typeof useRealtime>, 'follow' | 'join'>

export class LiveChannels {
  private readonly lines = new Map<string, Line>()
  private readonly leavePresence: () => void

  constructor(
    private readonly realtime: Realtime,
    private readonly me: number,
    private readonly ports: LivePorts,
    namesUpTo: number,
  ) {
    this.listenToRoom(GENERAL, 'MessageSent')
    this.lines.set(
      this.userChannel,
      realtime.follow({
        channel: this.userChannel,
        events: ['MessageRead', 'NotificationCreated', 'NotificationRead'],
        apply: (event) => this.apply(event),
        reload: () => ports.reloadConversations(),
      }),
    )
    this.lines.set(
      EVERYBODY,
      realtime.follow({
        channel: EVERYBODY,
        events: ['UserUpdated'],
        apply: ({ payload }) => ports.renamed((payload as { user: Profile }).user),
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
    return room === GENERAL ? 'chat' : `private-${conversationChannel(this.me, personIn(room) ?? 0)}`
  }

  get userChannel(): string {
    return `private-user.${this.me}`
  }

  /** A list was loaded; it includes its channel's events up to `eventId`. */
  loaded(channel: string, eventId: number): void {
    this.lines.get(channel)?.loaded(eventId)
  }

  stop(): void {
    this.leavePresence()
    for (const line of this.lines.values()) line.stop()
    this.lines.clear()
  }

  listenTo(personId: number): void {
    this.listenToRoom(roomWith(personId), 'PrivateMessageSent')
  }

  private listenToRoom(room: RoomKey, event: string): void {
    const channel = this.wireName(room)
    if (this.lines.has(channel)) return
    this.lines.set(
      channel,
      this.realtime.follow({
        channel,
        events: [event],
        apply: (one) => this.apply(one),
        reload: () => this.ports.reloadRoom(room),
        live: { UserTyping: (word) => this.ports.typing(room, word as unknown as { user: Profile; typing: boolean }) },
      }),
    )
  }

  private apply({ name, payload }: RecordedEvent): void {
    const data = payload as Record<string, unknown>
    switch (name) {
      case 'MessageSent':
      case 'PrivateMessageSent':
        this.ports.dispatch({ type: 'messageArrived', message: data['message'] as Message })
        break
      case 'MessageRead':
        this.ports.dispatch({ type: 'messageWasRead', message: data['message'] as Message })
        break
      case 'NotificationRead':
        this.ports.readElsewhere()
        break
      case 'NotificationCreated': {
        const { type, data: about } = data['notification'] as {
          type: string
          data: { message_id: number; sender: Profile }
        }
        if (type === 'private_message') this.ports.directMessage(about.sender, about.message_id)
      }
    }
  }
}
