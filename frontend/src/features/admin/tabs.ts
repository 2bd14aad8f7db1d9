/** The pages inside the admin page, each loaded on demand. */
export const ADMIN_PAGES = {
  overview: () => import('./OverviewTab.vue'),
  users: () => import('./UsersTab.vue'),
  connections: () => import('./ConnectionsTab.vue'),
  console: () => import('./ConsoleTab.vue'),
  events: () => import('./EventsTab.vue'),
  failedJobs: () => import('./FailedJobsTab.vue'),
  audit: () => import('./AuditTab.vue'),
}

/** Loads all of them ahead of time, so that they open at once, even if the server has become unreachable. */
export async function preloadAdminPages(): Promise<void> {
  await Promise.allSettled(Object.values(ADMIN_PAGES).map((load) => load()))
}
