/** Money: typed, shown, and never reckoned on the page. */
import { describe, expect, it } from 'vitest'
import type { Transaction, Wallet } from '@/api/records'
import { initialWallet, walletAfter, type WalletEvent, type WalletState } from '@/features/wallet/state'
import { amountProblem, money, typedAmount } from '@/shared/money'

const wallet = (balance: string, version: number): Wallet => ({ balance, currency: 'EUR', version })
const moved = (id: number): Transaction => ({
  id,
  type: 'deposit',
  amount: '1.00',
  balance_after: `${id}.00`,
  version: id,
  created_at: '2026-01-01T00:00:00Z',
})
const after = (state: WalletState, ...events: WalletEvent[]) => events.reduce(walletAfter, state)

describe('a typed amount', () => {
  it.each([
    ['5', '5'],
    ['5.5', '5.5'],
    [' 1 500,25 ', '1500.25'],
    ['0.01', '0.01'],
  ])('%j is taken as %j', (text, amount) => {
    expect(typedAmount(text)).toBe(amount)
  })

  it.each(['', '0', '0.00', '-1', '1.005', '1e3', 'NaN', 'ten', '1.2.3', '1,2,3', '01', '٣', '1000000000000'])(
    '%j is none',
    (text) => {
      expect(typedAmount(text)).toBeNull()
    },
  )
})

it('the largest amount is shown to the cent', () => {
  expect(money('999999999999.99').replace(/[^\d]/g, '')).toBe('99999999999999')
})

describe('a wallet', () => {
  const start = after(initialWallet, { type: 'walletLoaded', wallet: wallet('1.00', 1) })

  it('that heard of movements is the one fetched again', () => {
    const lived = after(
      start,
      { type: 'balanceUpdated', newBalance: '2.00', version: 2 },
      { type: 'balanceUpdated', newBalance: '2.00', version: 2 },
      { type: 'balanceUpdated', newBalance: '5.00', version: 3 },
    )

    expect(lived).toEqual(after(initialWallet, { type: 'walletLoaded', wallet: wallet('5.00', 3) }))
  })

  it('does not go back when something old comes late', () => {
    const lived = after(
      start,
      { type: 'balanceUpdated', newBalance: '5.00', version: 3 },
      { type: 'balanceUpdated', newBalance: '2.00', version: 2 },
    )

    expect(after(lived, { type: 'walletLoaded', wallet: wallet('2.00', 2) }).wallet).toEqual(wallet('5.00', 3))
  })

  it('lists nothing twice', () => {
    const lived = after(
      start,
      { type: 'listLoaded', list: [moved(3), moved(2)], hasOlder: true, isSame: false },
      { type: 'olderLoaded', list: [moved(2), moved(1)], hasOlder: false },
    )

    expect(lived.list.map(({ id }) => id)).toEqual([3, 2, 1])
  })

  const listed = (ids: number[], isSame: boolean, hasOlder = true): WalletEvent => ({
    type: 'listLoaded',
    list: ids.map(moved),
    hasOlder,
    isSame,
  })
  const older: WalletEvent = { type: 'olderLoaded', list: [moved(2), moved(1)], hasOlder: false }

  it.each([
    [
      'keeps what was loaded of older movements when the newest come again',
      listed([5, 4], true),
      [5, 4, 3, 2, 1],
      false,
    ],
    ['begins anew where the newest do not touch what is listed', listed([9, 8], true), [9, 8], true],
    ['begins anew with other movements', listed([5, 4], false), [5, 4], true],
    ['empties where there is none', listed([], false, false), [], false],
  ])('%s', (_, come, ids, hasOlder) => {
    const lived = after(start, listed([4, 3], false), older, come)

    expect(lived.list.map(({ id }) => id)).toEqual(ids)
    expect(lived.hasOlder).toBe(hasOlder)
  })
})

it.each([
  ['', 'Enter an amount'],
  ['1.234', 'Enter an amount'],
  ['-5', 'Enter an amount'],
  ['1234567890123', 'too large'],
  ['9'.repeat(40) + ',50', 'too large'],
])('what is typed as %s is told why it is no amount', (typed, told) => {
  expect(typedAmount(typed)).toBeNull()
  expect(amountProblem(typed)).toContain(told)
})
