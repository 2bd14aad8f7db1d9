/** Tells the other tabs of this browser about signing in and out. */
import type { Profile } from '@/api/records'
import { openTabChannel, type TabChannel } from '@/shared/tabs'

export type SessionTabMessage = { type: 'signedIn'; account: Profile } | { type: 'signedOut'; me: number }

export const openSessionTabs = (onMessage: (message: SessionTabMessage) => void): TabChannel<SessionTabMessage> =>
  openTabChannel('session', onMessage)

export function postToSessionTabs(message: SessionTabMessage): void {
  const tabs = openSessionTabs(() => undefined)
  tabs.post(message)
  tabs.close()
}
