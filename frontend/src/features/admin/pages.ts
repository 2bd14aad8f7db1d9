/** A list that is loaded page by page, newest first. Pure. */

export interface Paged<T extends { id: number }> {
  phase: 'loading' | 'ready' | 'failed'
  list: readonly T[]
  hasOlder: boolean
}

export type PagedEvent<T extends { id: number }> =
  | { type: 'loading' }
  | { type: 'failed' }
  | { type: 'loaded'; list: readonly T[]; hasOlder: boolean }
  | { type: 'olderLoaded'; list: readonly T[]; hasOlder: boolean }
  | { type: 'changed'; one: T }
  | { type: 'gone'; id: number }

export function pagedAfter<T extends { id: number }>(state: Paged<T>, event: PagedEvent<T>): Paged<T> {
  switch (event.type) {
    case 'loading':
      return { ...state, phase: state.phase === 'ready' ? 'ready' : 'loading' }
    case 'failed':
      return { ...state, phase: state.phase === 'ready' ? 'ready' : 'failed' }
    case 'loaded':
      return { phase: 'ready', list: event.list, hasOlder: event.hasOlder }
    case 'olderLoaded': {
      const known = new Set(state.list.map(({ id }) => id))
      return {
        ...state,
        list: [...state.list, ...event.list.filter(({ id }) => !known.has(id))],
        hasOlder: event.hasOlder,
      }
    }
    case 'changed':
      return { ...state, list: state.list.map((one) => (one.id === event.one.id ? event.one : one)) }
    case 'gone':
      return { ...state, list: state.list.filter(({ id }) => id !== event.id) }
  }
}
