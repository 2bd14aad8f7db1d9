/** The signed-in account. */
import { defineStore } from 'pinia'
import { ref } from 'vue'
import { signOutEverywhere as endAll } from '@/api/account'
import { AnotherAccount, ValidationFailed, SignedOut } from '@/api/errors'
import type { Account, Profile } from '@/api/records'
import * as http from '@/api/session'
import { leaveNote } from './switched'
import { postToSessionTabs, type SessionTabMessage } from './tabs'

const isTaken = (error: unknown): error is ValidationFailed =>
  error instanceof ValidationFailed && Object.keys(error.errors).join() === 'email'

export const useSession = defineStore('session', () => {
  const account = ref<Account | null>(null)
  /** Whether the session expired: the sign-in page says so. */
  const hasExpired = ref(false)
  /** The id of the account that was signed in before. */
  const former = ref<number | null>(null)
  /** The account that signed in in another tab while none was signed in here. */
  const elsewhere = ref<Profile | null>(null)
  /** The event up to which names in lists are current. */
  let namesUpTo = 0
  let isKnown = false

  function opened(session: http.Session): void {
    account.value = session.account
    namesUpTo = session.eventId
  }

  /** Fetches the session once. Raises Unreachable. */
  async function restore(): Promise<void> {
    if (isKnown) return
    try {
      if (http.mayBeSignedIn()) opened(await http.currentSession())
    } catch (error) {
      if (!(error instanceof SignedOut)) throw error
    }
    isKnown = true
  }

  /** Fetches the account again. Raises SignedOut, Unreachable. */
  async function check(): Promise<void> {
    account.value = (await http.currentSession()).account
  }

  async function signIn(email: string, password: string): Promise<void> {
    const session = await http.signIn(email, password)
    opened(session)
    const { id, name } = session.account
    hasExpired.value = false
    elsewhere.value = null
    isKnown = true
    postToSessionTabs({ type: 'signedIn', account: { id, name } })
  }

  /** Takes over the session that another tab opened. Raises as `restore`. */
  async function follow(): Promise<void> {
    isKnown = false
    await restore()
    elsewhere.value = null
    if (account.value !== null) hasExpired.value = false
  }

  /** Another tab signed in or out. */
  function onTabMessage(message: SessionTabMessage): void {
    if (message.type === 'signedOut') {
      if (message.me === account.value?.id) forget()
      if (message.me === elsewhere.value?.id) elsewhere.value = null
    } else if (account.value === null) elsewhere.value = message.account
    else if (message.account.id !== account.value.id) superseded()
  }

  /** The browser is signed in to another account now: the page reloads for that one and says so. */
  function superseded(): void {
    if (account.value === null) return
    leaveNote(account.value)
    window.location.replace('/')
  }

  async function register(name: string, email: string, password: string): Promise<void> {
    try {
      const token = await http.register(name, email, password)
      await signIn(email, password)
      // Pages use the session. A token that could not be revoked stays in the list of tokens.
      http.revoke(token).catch(() => undefined)
    } catch (error) {
      if (!isTaken(error)) throw error
      // Maybe an earlier attempt registered it and its response was lost: then the password fits.
      await signIn(email, password).catch(() => Promise.reject(error))
    }
  }

  const signOut = () => leave(http.signOut)

  /** Ends all sessions, tokens and connections, including this page's. */
  const signOutEverywhere = () => leave(endAll)

  async function leave(end: () => Promise<void>): Promise<void> {
    const me = account.value?.id
    try {
      await end()
    } catch (error) {
      if (!(error instanceof SignedOut) || error instanceof AnotherAccount) throw error
    }
    forget()
    if (me !== undefined) postToSessionTabs({ type: 'signedOut', me })
  }

  /** A person was renamed; maybe this account, in another tab. */
  function renamed(person: Profile): void {
    if (account.value?.id === person.id) account.value = { ...account.value, name: person.name }
  }

  /** The account was changed. */
  function changed(now: Account): void {
    account.value = now
  }

  /** Signed out here or in another tab. */
  function forget(): void {
    former.value = account.value?.id ?? former.value
    account.value = null
    hasExpired.value = false
  }

  /** The server says that the session has ended. */
  function ended(): void {
    if (account.value === null) return
    forget()
    hasExpired.value = true
  }

  return {
    account,
    hasExpired,
    former,
    elsewhere,
    restore,
    check,
    signIn,
    follow,
    onTabMessage,
    superseded,
    register,
    signOut,
    signOutEverywhere,
    renamed,
    changed,
    ended,
    namesUpTo: () => namesUpTo,
  }
})
