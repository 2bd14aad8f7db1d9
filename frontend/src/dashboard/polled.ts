/** Asks again and again while a page is shown. */
import { onScopeDispose, ref, shallowRef, watch, type Ref, type ShallowRef } from 'vue'
import { ApiError } from './api'
import { session } from './session'

export interface Polled<Answer> {
  answer: ShallowRef<Answer | null>
  problem: Ref<string>
  refresh(): Promise<void>
}

/** Asks at once, when `changes` change, and every `everyMs`; not while the page is hidden, nor twice at once. */
export function usePolled<Answer>(
  ask: () => Promise<Answer>,
  everyMs: number,
  changes: () => unknown = () => null,
): Polled<Answer> {
  const answer = shallowRef<Answer | null>(null)
  const problem = ref('')
  let asked = 0

  async function refresh(): Promise<void> {
    const own = ++asked
    try {
      const found = await ask()
      if (own !== asked) return
      answer.value = found
      problem.value = ''
    } catch (error) {
      if (!(error instanceof ApiError)) throw error
      if (own !== asked) return
      if (error.status === 401) session.phase = 'locked'
      problem.value = error.message
    }
  }

  const timer = setInterval(() => {
    if (!document.hidden) void refresh()
  }, everyMs)
  onScopeDispose(() => {
    asked += 1
    clearInterval(timer)
  })
  watch(
    changes,
    () => {
      answer.value = null
      void refresh()
    },
    { deep: true },
  )
  void refresh()
  return { answer, problem, refresh }
}
