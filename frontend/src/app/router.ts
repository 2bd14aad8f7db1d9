import { createRouter, createWebHistory, type Router } from 'vue-router'
import ChatPage from '@/features/chat/ChatPage.vue'
import SignInPage from '@/features/users/SignInPage.vue'
import { useSession } from '@/features/users/session'

/** Where to go after signing in: a path of ours, never another site. */
export function safeNext(next: unknown): string {
  return typeof next === 'string' && /^\/(?![/\\])/.test(next) ? next : '/'
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
        component: () => import('@/features/notifications/NotificationsPage.vue'),
        meta: { section: 'notifications', title: 'Notifications' },
      },
      {
        path: '/campaigns',
        name: 'campaigns',
        component: () => import('@/features/campaigns/CampaignsPage.vue'),
        meta: { section: 'campaigns', title: 'Campaigns' },
      },
      {
        path: '/campaigns/:id([1-9]\\d{0,15})',
        name: 'campaign',
        component: () => import('@/features/campaigns/CampaignPage.vue'),
        meta: { section: 'campaigns', title: 'Campaign' },
      },
      {
        path: '/wallet',
        name: 'wallet',
        component: () => import('@/features/wallet/WalletPage.vue'),
        meta: { section: 'wallet', title: 'Wallet' },
      },
      {
        path: '/account',
        name: 'account',
        component: () => import('@/features/users/AccountPage.vue'),
        meta: { section: 'account', title: 'Your account' },
      },
      {
        path: '/admin',
        component: () => import('@/features/admin/AdminPage.vue'),
        meta: { section: 'admin', title: 'Admin', isForAdmins: true },
        children: [
          { path: '', name: 'admin', component: () => import('@/features/admin/OverviewTab.vue') },
          { path: 'users', name: 'admin-users', component: () => import('@/features/admin/UsersTab.vue') },
          { path: 'connections', name: 'admin-connections', component: () => import('@/features/admin/ConnectionsTab.vue') },
          { path: 'console', name: 'admin-console', component: () => import('@/features/admin/ConsoleTab.vue') },
          { path: 'events', name: 'admin-events', component: () => import('@/features/admin/EventsTab.vue') },
          { path: 'failed-jobs', name: 'admin-failed-jobs', component: () => import('@/features/admin/FailedJobsTab.vue') },
          { path: 'audit', name: 'admin-audit', component: () => import('@/features/admin/AuditTab.vue') },
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
