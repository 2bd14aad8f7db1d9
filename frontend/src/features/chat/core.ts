/** What the parts of the chat store share. */
import type { ComputedRef, Ref, ShallowRef } from 'vue'
import type { Profile } from '@/api/records'
import type { RoomKey } from './rooms'
import type { ChatEvent, ChatState } from './state'

export interface ChatCore {
  readonly state: ShallowRef<ChatState>
  /** The open room. */
  readonly room: Ref<RoomKey | null>
  readonly me: ComputedRef<number>
  /** Changes the state, and nothing else. */
  apply(event: ChatEvent): void
  /** Changes the state; every part of the store reacts to what changed. */
  dispatch(event: ChatEvent): void
  /** Sends to the other tabs of this browser. */
  post(message: ChatTabMessage): void
}

/** What tabs send each other: how far a room was read, before the server says so, and opened conversations. */
export type ChatTabMessage =
  { type: 'read'; me: number; room: RoomKey; upTo: number } | { type: 'opened'; me: number; person: Profile }
