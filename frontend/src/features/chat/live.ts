/** The channels the chat listens to, and how each closes its gap after a loss of the connection. */
import { Rejected, SignedOut } from '@/api/errors'
import { eventsAfter } from '@/api/realtime'
import type { Message, Profile, RecordedEvent } from '@/api/records'
import type { MembersEvent } from '@/features/presence/members'
import type { RealtimeEcho } from '@/realtime/echo'
import { Follower } from '@/realtime/gap'
import { conversationChannel, GENERAL, personIn, roomWith, type RoomKey } from './rooms'
import type { ChatEvent } from './state'

export interface LivePorts {
  dispatch(event: ChatEvent): void
  typing(room: RoomKey, word: { user: Profile; typing: boolean }): void
  members(event: MembersEvent): void
  /** Somebody wrote directly: the sender and the message's id. */
  directMessage(sender: Profile, messageId: number): void
  /** Load a list again; resolve to the last event it holds. */
  reloadRoom(room: RoomKey): Promise<number>
  reloadConversations(): Promise<number>
}

interface Line {
  follower: Follower
  isSubscribed: boolean
  wasSubscribed: boolean
  timer: ReturnType<typeof setTimeout> | undefined
}

type Payload = Record<string, unknown>

/** After a reconnect all pages ask at once, if nobody spreads them. */
const SPREAD_MS = 3_000
const AGAIN_MS = 4_000

export class LiveChannels {
  private readonly lines = new Map<string, Line>()

  constructor(
    private readonly echo: RealtimeEcho,
    private readonly me: number,
    private readonly ports: LivePorts,
  ) {
    this.listenToGeneral()
    this.listenToUser()
    this.listenToPresence()
  }

  /** The channel a room's messages come on, by its wire name. */
  wireName(room: RoomKey): string {
    return room === GENERAL ? 'chat' : `private-${conversationChannel(this.me, personIn(room) ?? 0)}`
  }

  get userChannel(): string {
    return `private-user.${this.me}`
  }

  /** A list was loaded; it holds its channel's events up to `eventId`. */
  loaded(channel: string, eventId: number): void {
    const line = this.lines.get(channel)
    if (!line) return
    line.follower.loaded(eventId)
    this.close(channel, 0)
  }

  /** The connection is gone. */
  lost(): void {
    for (const line of this.lines.values()) {
      line.isSubscribed = false
      line.follower.lost()
      clearTimeout(line.timer)
    }
  }

  stop(): void {
    this.lost()
    this.lines.clear()
  }

  listenTo(personId: number): void {
    const room = roomWith(personId)
    const wire = this.wireName(room)
    if (this.lines.has(wire)) return
    this.follow(wire, () => this.ports.reloadRoom(room))
    this.echo
      .private(conversationChannel(this.me, personId))
      .subscribed(() => this.subscribed(wire))
      .listen('PrivateMessageSent', (payload: Payload) => this.heard(wire, 'PrivateMessageSent', payload))
      .listen('UserTyping', (word: { user: Profile; typing: boolean }) => this.ports.typing(room, word))
  }

  private listenToGeneral(): void {
    this.follow('chat', () => this.ports.reloadRoom(GENERAL))
    this.echo
      .channel('chat')
      .subscribed(() => this.subscribed('chat'))
      .listen('MessageSent', (payload: Payload) => this.heard('chat', 'MessageSent', payload))
      .listen('UserTyping', (word: { user: Profile; typing: boolean }) => this.ports.typing(GENERAL, word))
  }

  private listenToUser(): void {
    const wire = this.userChannel
    this.follow(wire, () => this.ports.reloadConversations())
    this.echo
      .private(`user.${this.me}`)
      .subscribed(() => this.subscribed(wire))
      .listen('MessageRead', (payload: Payload) => this.heard(wire, 'MessageRead', payload))
      .listen('NotificationCreated', (payload: Payload) => this.heard(wire, 'NotificationCreated', payload))
  }

  private listenToPresence(): void {
    this.echo
      .join('chat')
      .here((members: Profile[]) => this.ports.members({ type: 'here', members }))
      .joining((member: Profile) => this.ports.members({ type: 'joined', member }))
      .leaving((member: Profile) => this.ports.members({ type: 'left', id: Number(member.id), now: Date.now() }))
  }

  private follow(wire: string, reload: () => Promise<number>): void {
    const follower = new Follower({
      channel: wire,
      fetchAfter: eventsAfter,
      apply: (event) => this.apply(event),
      reload,
    })
    this.lines.set(wire, { follower, isSubscribed: false, wasSubscribed: false, timer: undefined })
  }

  private subscribed(wire: string): void {
    const line = this.lines.get(wire)
    if (!line) return
    const spread = line.wasSubscribed ? Math.random() * SPREAD_MS : 0
    line.isSubscribed = true
    line.wasSubscribed = true
    this.close(wire, spread)
  }

  /** Closes the gap of a channel once its list is loaded and it is subscribed; tries again until it worked. */
  private close(wire: string, delayMs: number): void {
    const line = this.lines.get(wire)
    if (!line?.isSubscribed || !line.follower.isOpen) return
    clearTimeout(line.timer)
    line.timer = setTimeout(() => {
      line.follower.close().catch((error: unknown) => {
        const isFinal = error instanceof SignedOut || error instanceof Rejected
        if (!isFinal) this.close(wire, AGAIN_MS + Math.random() * SPREAD_MS)
      })
    }, delayMs)
  }

  private heard(wire: string, name: string, payload: Payload): void {
    const eventId = Number(payload['eventId'])
    const isNew = !Number.isSafeInteger(eventId) || this.lines.get(wire)?.follower.heard(eventId) !== false
    if (isNew) this.apply({ eventId, name, payload })
  }

  private apply({ name, payload }: RecordedEvent): void {
    const data = payload as Payload
    switch (name.slice(name.lastIndexOf('\\') + 1)) {
      case 'MessageSent':
      case 'PrivateMessageSent':
        this.ports.dispatch({ type: 'messageArrived', message: data['message'] as Message })
        break
      case 'MessageRead':
        this.ports.dispatch({ type: 'messageWasRead', message: data['message'] as Message })
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
