import { createRouter, createWebHistory, type Router } from 'vue-router'
import { ADMIN_PAGES } from '@/features/admin/tabs'
import ChatPage from '@/features/chat/ChatPage.vue'
import { safeNext } from '@/features/users/next'
import { useSession } from '@/features/users/session'

/** Pages that are loaded on demand. */
const PAGES = {
  signIn: () => import('@/features/users/SignInPage.vue'),
  notifications: () => import('@/features/notifications/NotificationsPage.vue'),
  campaigns: () => import('@/features/campaigns/CampaignsPage.vue'),
  campaign: () => import('@/features/campaigns/CampaignPage.vue'),
  wallet: () => import('@/features/wallet/WalletPage.vue'),
  account: () => import('@/features/users/AccountPage.vue'),
}

/** Loads them ahead of time, so that they open at once, even if the server has become unreachable. */
export async function preloadPages(): Promise<void> {
  await Promise.allSettled(Object.values(PAGES).map((bring) => bring()))
}

/** The router loads a page and the page inside it together, and handles only the first failure. */
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
      { path: '/sign-in', name: 'sign-in', component: PAGES.signIn, meta: { isOpen: true } },
      { path: '/register', name: 'register', component: PAGES.signIn, meta: { isOpen: true } },
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
          { path: '', name: 'admin', component: quietly(ADMIN_PAGES.overview) },
          { path: 'users', name: 'admin-users', component: quietly(ADMIN_PAGES.users) },
          { path: 'connections', name: 'admin-connections', component: quietly(ADMIN_PAGES.connections) },
          { path: 'console', name: 'admin-console', component: quietly(ADMIN_PAGES.console) },
          { path: 'events', name: 'admin-events', component: quietly(ADMIN_PAGES.events) },
          { path: 'failed-jobs', name: 'admin-failed-jobs', component: quietly(ADMIN_PAGES.failedJobs) },
          { path: 'audit', name: 'admin-audit', component: quietly(ADMIN_PAGES.audit) },
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
