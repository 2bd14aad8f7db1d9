/** The pages of the dashboard. Addresses are in the fragment, so that the server needs to know none. */
import { createRouter, createWebHashHistory, type RouteRecordRaw } from 'vue-router'
import OverviewPage from './OverviewPage.vue'

const routes: RouteRecordRaw[] = [
  { path: '/', name: 'overview', component: OverviewPage, meta: { title: 'Overview' } },
  {
    path: '/connections',
    name: 'connections',
    component: () => import('./ConnectionsPage.vue'),
    meta: { title: 'Connections' },
  },
  {
    path: '/connections/:socket',
    name: 'connection',
    component: () => import('./ConnectionPage.vue'),
    props: true,
    meta: { title: 'Connection' },
  },
  { path: '/channels', name: 'channels', component: () => import('./ChannelsPage.vue'), meta: { title: 'Channels' } },
  {
    path: '/channels/:channel',
    name: 'channel',
    component: () => import('./ChannelPage.vue'),
    props: true,
    meta: { title: 'Channel' },
  },
  { path: '/console', name: 'console', component: () => import('./ConsolePage.vue'), meta: { title: 'Console' } },
  { path: '/webhooks', name: 'webhooks', component: () => import('./WebhooksPage.vue'), meta: { title: 'Webhooks' } },
  { path: '/apps', name: 'apps', component: () => import('./AppsPage.vue'), meta: { title: 'Apps' } },
  { path: '/nodes', name: 'nodes', component: () => import('./NodesPage.vue'), meta: { title: 'Nodes' } },
  { path: '/audit', name: 'audit', component: () => import('./AuditPage.vue'), meta: { title: 'Audit log' } },
  { path: '/:rest(.*)*', redirect: '/' },
]

export const router = createRouter({ history: createWebHashHistory(), routes })
router.afterEach(({ meta }) => {
  document.title = `${String(meta['title'])} · Realtime server`
})
