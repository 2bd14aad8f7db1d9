/** Who is signed in. */
import { defineStore } from 'pinia'
import { ref } from 'vue'
import { signOutEverywhere as endAll } from '@/api/account'
import { Refused, SignedOut } from '@/api/errors'
import type { Account } from '@/api/records'
import * as http from '@/api/session'
import { joinTabs } from '@/shared/tabs'

const isTaken = (error: unknown): error is Refused => error instanceof Refused && Object.keys(error.errors).join() === 'email'

export const useSession = defineStore('session', () => {
  const account = ref<Account | null>(null)
  /** Whether the session ended by itself: the sign-in page says so. */
  const hasExpired = ref(false)
  let isKnown = false

  /** Asks once who is signed in. Raises Unreachable. */
  async function restore(): Promise<void> {
    if (isKnown) return
    try {
      if (http.mayBeSignedIn()) account.value = await http.currentAccount()
    } catch (error) {
      if (!(error instanceof SignedOut)) throw error
    }
    isKnown = true
  }

  /** Asks again who is signed in, and what they may. Raises SignedOut, Unreachable. */
  async function check(): Promise<void> {
    account.value = await http.currentAccount()
  }

  async function signIn(email: string, password: string): Promise<void> {
    account.value = await http.signIn(email, password)
    hasExpired.value = false
    isKnown = true
  }

  async function register(name: string, email: string, password: string): Promise<void> {
    try {
      const token = await http.register(name, email, password)
      await signIn(email, password)
      // Pages have their session. A token that could not be revoked is in the list of one's tokens.
      http.revoke(token).catch(() => undefined)
    } catch (error) {
      if (!isTaken(error)) throw error
      // Registered by a try whose answer was lost, perhaps: then this password opens the account.
      await signIn(email, password).catch(() => Promise.reject(error))
    }
  }

  const signOut = () => leave(http.signOut)

  /** Ends all sessions, tokens and connections, this page's too. */
  const signOutEverywhere = () => leave(endAll)

  async function leave(end: () => Promise<void>): Promise<void> {
    try {
      await end()
    } catch (error) {
      if (!(error instanceof SignedOut)) throw error
    }
    forget()
    const tabs = joinTabs(() => undefined)
    tabs.tell({ type: 'signedOut' })
    tabs.close()
  }

  /** Something of the account is different. */
  function changed(now: Account): void {
    account.value = now
  }

  /** Signed out here or in another tab. */
  function forget(): void {
    account.value = null
    hasExpired.value = false
  }

  /** The server says that the session is over. */
  function ended(): void {
    if (account.value === null) return
    account.value = null
    hasExpired.value = true
  }

  return { account, hasExpired, restore, check, signIn, register, signOut, signOutEverywhere, changed, forget, ended }
})
