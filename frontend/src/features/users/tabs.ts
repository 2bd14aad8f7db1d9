/** Tells the other tabs of this browser about signing in and out. */
import type { Profile } from '@/api/records'
import { joinTabs, type Tabs } from '@/shared/tabs'

export type SessionNews = { type: 'signedIn'; account: Profile } | { type: 'signedOut'; me: number }

export const joinSessionTabs = (hear: (news: SessionNews) => void): Tabs<SessionNews> => joinTabs('session', hear)

export function tellSessionTabs(news: SessionNews): void {
  const tabs = joinSessionTabs(() => undefined)
  tabs.tell(news)
  tabs.close()
}
