import { createRouter, createWebHistory, type Router } from 'vue-router'
import ChatPage from '@/features/chat/ChatPage.vue'
import SignInPage from '@/features/users/SignInPage.vue'
import { useSession } from '@/features/users/session'

/** Where to go after signing in: a path of ours, never another site. */
export function safeNext(next: unknown): string {
  return typeof next === 'string' && /^\/(?![/\\])/.test(next) ? next : '/'
}

/** Pages that are not part of the first one. */
const PAGES = {
  notifications: () => import('@/features/notifications/NotificationsPage.vue'),
  campaigns: () => import('@/features/campaigns/CampaignsPage.vue'),
  campaign: () => import('@/features/campaigns/CampaignPage.vue'),
  wallet: () => import('@/features/wallet/WalletPage.vue'),
  account: () => import('@/features/users/AccountPage.vue'),
}

/** Brings them before they are wanted, so that they open at once, and when nobody answers any more. */
export async function bringPages(): Promise<void> {
  await Promise.allSettled(Object.values(PAGES).map((bring) => bring()))
}

/** The router asks for a page and the one inside it together, and hears of the first failure only: the second is no news. */
function quietly<T>(bring: () => Promise<T>): () => Promise<T> {
  return () => {
    const coming = bring()
    coming.catch(() => undefined)
    return coming
  }
}

export function buildRouter(): Router {
  const router = createRouter({
    history: createWebHistory(),
    routes: [
      { path: '/sign-in', name: 'sign-in', component: SignInPage, meta: { isOpen: true } },
      { path: '/register', name: 'register', component: SignInPage, meta: { isOpen: true } },
      { path: '/', name: 'home', component: ChatPage },
      { path: '/general', name: 'general', component: ChatPage },
      { path: '/direct/:id([1-9]\\d{0,15})', name: 'direct', component: ChatPage },
      {
        path: '/notifications',
        name: 'notifications',
        component: PAGES.notifications,
        meta: { section: 'notifications', title: 'Notifications' },
      },
      {
        path: '/campaigns',
        name: 'campaigns',
        component: PAGES.campaigns,
        meta: { section: 'campaigns', title: 'Campaigns' },
      },
      {
        path: '/campaigns/:id([1-9]\\d{0,15})',
        name: 'campaign',
        component: PAGES.campaign,
        meta: { section: 'campaigns', title: 'Campaign' },
      },
      {
        path: '/wallet',
        name: 'wallet',
        component: PAGES.wallet,
        meta: { section: 'wallet', title: 'Wallet' },
      },
      {
        path: '/account',
        name: 'account',
        component: PAGES.account,
        meta: { section: 'account', title: 'Your account' },
      },
      {
        path: '/admin',
        component: quietly(() => import('@/features/admin/AdminPage.vue')),
        meta: { section: 'admin', title: 'Admin', isForAdmins: true },
        children: [
          { path: '', name: 'admin', component: quietly(() => import('@/features/admin/OverviewTab.vue')) },
          { path: 'users', name: 'admin-users', component: quietly(() => import('@/features/admin/UsersTab.vue')) },
          { path: 'connections', name: 'admin-connections', component: quietly(() => import('@/features/admin/ConnectionsTab.vue')) },
          { path: 'console', name: 'admin-console', component: quietly(() => import('@/features/admin/ConsoleTab.vue')) },
          { path: 'events', name: 'admin-events', component: quietly(() => import('@/features/admin/EventsTab.vue')) },
          { path: 'failed-jobs', name: 'admin-failed-jobs', component: quietly(() => import('@/features/admin/FailedJobsTab.vue')) },
          { path: 'audit', name: 'admin-audit', component: quietly(() => import('@/features/admin/AuditTab.vue')) },
        ],
      },
      { path: '/:rest(.*)*', redirect: '/' },
    ],
  })
  router.beforeEach(async (to) => {
    const session = useSession()
    await session.restore()
    const isOpen = to.meta['isOpen'] === true
    if (!session.account && !isOpen) {
      return { name: 'sign-in', query: to.fullPath === '/' ? {} : { next: to.fullPath } }
    }
    if (session.account && isOpen) return safeNext(to.query['next'])
    if (session.account?.is_admin !== true && to.meta['isForAdmins'] === true) return { name: 'home' }
    return true
  })
  return router
}
