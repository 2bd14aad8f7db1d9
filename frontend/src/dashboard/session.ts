/** Who looks, and at which application. */
import { computed, reactive, ref } from 'vue'
import { ApiError, get, useToken, type AppRow, type Session } from './api'

export const session = reactive({
  phase: 'loading' as 'loading' | 'ready' | 'locked' | 'failed',
  problem: '',
  operator: '',
  version: '',
  /** The only application that this operator sees; null for all. */
  only: null as string | null,
  apps: [] as AppRow[],
})

export const chosen = ref('')
export const app = computed(() =>
  session.apps.some(({ id }) => id === chosen.value) ? chosen.value : (session.apps[0]?.id ?? ''),
)

export async function open(): Promise<void> {
  try {
    const found = await get<Session>('session')
    session.apps = await get<AppRow[]>('apps')
    Object.assign(session, { phase: 'ready', operator: found.operator, version: found.version, only: found.app_id })
  } catch (error) {
    if (!(error instanceof ApiError)) throw error
    session.phase = error.status === 401 ? 'locked' : 'failed'
    session.problem = error.message
  }
}

export async function unlock(token: string): Promise<void> {
  useToken(token)
  await open()
}
