/** The state of the wallet. Pure. The balance always comes from the server and is never computed here. */
import type { Transaction, Wallet } from '@/api/records'

export interface WalletState {
  phase: 'empty' | 'loading' | 'ready' | 'failed'
  wallet: Wallet | null
  /** Newest first, as far as loaded, for the present filter. */
  list: readonly Transaction[]
  hasOlder: boolean
}

export type WalletEvent =
  | { type: 'loading' }
  | { type: 'failed' }
  | { type: 'walletLoaded'; wallet: Wallet }
  /** `isSame`: a reload with the same filter. */
  | { type: 'listLoaded'; list: readonly Transaction[]; hasOlder: boolean; isSame: boolean }
  | { type: 'olderLoaded'; list: readonly Transaction[]; hasOlder: boolean }
  | { type: 'balanceUpdated'; newBalance: string; version: number }

export const initialWallet: WalletState = { phase: 'empty', wallet: null, list: [], hasOlder: false }

export function walletAfter(state: WalletState, event: WalletEvent): WalletState {
  switch (event.type) {
    case 'loading':
      return { ...state, phase: state.phase === 'ready' ? 'ready' : 'loading' }
    case 'failed':
      return { ...state, phase: state.phase === 'ready' ? 'ready' : 'failed' }
    case 'walletLoaded': {
      // An event may have arrived before the response.
      const isOlder = state.wallet !== null && state.wallet.version > event.wallet.version
      return { ...state, phase: 'ready', wallet: isOlder ? state.wallet : event.wallet }
    }
    case 'listLoaded': {
      const last = event.list.at(-1)?.id
      const touches = event.isSame && state.list.some(({ id }) => id === last)
      if (last === undefined || !touches) return { ...state, list: event.list, hasOlder: event.hasOlder }
      return { ...state, list: [...event.list, ...state.list.filter(({ id }) => id < last)] }
    }
    case 'olderLoaded': {
      const known = new Set(state.list.map(({ id }) => id))
      return {
        ...state,
        list: [...state.list, ...event.list.filter(({ id }) => !known.has(id))],
        hasOlder: event.hasOlder,
      }
    }
    case 'balanceUpdated': {
      const { wallet } = state
      if (wallet === null || event.version <= wallet.version) return state
      return { ...state, wallet: { ...wallet, balance: event.newBalance, version: event.version } }
    }
  }
}
