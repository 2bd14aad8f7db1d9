/** Keeps the tabs of one browser in step about what the server tells nobody: what was read here, signing in and out. */
import type { Profile } from '@/api/records'
import type { RoomKey } from '@/features/chat/rooms'

export type TabNews =
  | { type: 'seen'; me: number; room: RoomKey; upTo: number }
  | { type: 'opened'; me: number; person: Profile }
  /** A notification came in where the reader looks. */
  | { type: 'noticed'; id: number }
  | { type: 'signedIn'; account: Profile }
  | { type: 'signedOut'; me: number }

export interface Tabs {
  tell(news: TabNews): void
  close(): void
}

export function joinTabs(hear: (news: TabNews) => void): Tabs {
  if (typeof BroadcastChannel === 'undefined') return { tell: () => undefined, close: () => undefined }
  const channel = new BroadcastChannel('smartlink')
  channel.onmessage = ({ data }: MessageEvent<TabNews>) => hear(data)
  return { tell: (news) => channel.postMessage(news), close: () => channel.close() }
}

/** Tells one thing to the other tabs. */
export function tellTabs(news: TabNews): void {
  const tabs = joinTabs(() => undefined)
  tabs.tell(news)
  tabs.close()
}
