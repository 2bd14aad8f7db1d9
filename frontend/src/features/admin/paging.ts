/** Loads a list of `pages.ts`: the first page, older pages, and reloads. Answers to outdated requests are dropped. */
import { computed, ref, shallowRef } from 'vue'
import { onReconnected } from '@/realtime/reconnected'
import { pagedAfter, type Paged, type PagedEvent } from './pages'

export function usePaging<T extends { id: number }>(pageSize: number, fetchPage: (before?: number) => Promise<T[]>) {
  const state = shallowRef<Paged<T>>({ phase: 'loading', list: [], hasOlder: false })
  const failure = shallowRef<unknown>(null)
  const isLoading = ref(false)
  let round = 0

  function dispatch(event: PagedEvent<T>): void {
    state.value = pagedAfter(state.value, event)
  }

  async function ask(type: 'loaded' | 'olderLoaded', before?: number): Promise<void> {
    round += 1
    const asked = round
    isLoading.value = true
    try {
      const list = await fetchPage(before)
      if (asked !== round) return
      failure.value = null
      dispatch({ type, list, hasOlder: list.length === pageSize })
    } catch (error) {
      if (asked !== round) return
      failure.value = error
      dispatch({ type: 'failed' })
    } finally {
      if (asked === round) isLoading.value = false
    }
  }

  async function load(): Promise<void> {
    dispatch({ type: 'loading' })
    await ask('loaded')
  }

  async function loadOlder(): Promise<void> {
    const last = state.value.list.at(-1)
    if (last && !isLoading.value) await ask('olderLoaded', last.id)
  }

  onReconnected(() => state.value.phase === 'failed' && void load())

  return { state, list: computed(() => state.value.list), failure, isLoading, dispatch, load, loadOlder }
}
