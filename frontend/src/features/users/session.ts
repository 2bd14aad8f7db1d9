/** Who is signed in. */
import { defineStore } from 'pinia'
import { ref } from 'vue'
import { signOutEverywhere as endAll } from '@/api/account'
import { AnotherAccount, Refused, SignedOut } from '@/api/errors'
import type { Account, Profile } from '@/api/records'
import * as http from '@/api/session'
import { leaveNote } from './switched'
import { tellSessionTabs, type SessionNews } from './tabs'

const isTaken = (error: unknown): error is Refused =>
  error instanceof Refused && Object.keys(error.errors).join() === 'email'

export const useSession = defineStore('session', () => {
  const account = ref<Account | null>(null)
  /** Whether the session ended by itself: the sign-in page says so. */
  const hasExpired = ref(false)
  /** Whose page this was before it was signed out. */
  const former = ref<number | null>(null)
  /** Who signed in in another tab while nobody was signed in here. */
  const elsewhere = ref<Profile | null>(null)
  /** Up to which event the names in lists are known to be current. */
  let namesUpTo = 0
  let isKnown = false

  function opened(session: http.Session): void {
    account.value = session.account
    namesUpTo = session.eventId
  }

  /** Asks once who is signed in. Raises Unreachable. */
  async function restore(): Promise<void> {
    if (isKnown) return
    try {
      if (http.mayBeSignedIn()) opened(await http.currentSession())
    } catch (error) {
      if (!(error instanceof SignedOut)) throw error
    }
    isKnown = true
  }

  /** Asks again who is signed in, and what they may. Raises SignedOut, Unreachable. */
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
    tellSessionTabs({ type: 'signedIn', account: { id, name } })
  }

  /** Takes on the session that another tab opened. Raises as `restore`. */
  async function follow(): Promise<void> {
    isKnown = false
    await restore()
    elsewhere.value = null
    if (account.value !== null) hasExpired.value = false
  }

  /** Another tab signed in or out. */
  function hear(news: SessionNews): void {
    if (news.type === 'signedOut') {
      if (news.me === account.value?.id) forget()
      if (news.me === elsewhere.value?.id) elsewhere.value = null
    } else if (account.value === null) elsewhere.value = news.account
    else if (news.account.id !== account.value.id) superseded()
  }

  /** The browser is another account's now: this page says so and loads again, as that one's. */
  function superseded(): void {
    if (account.value === null) return
    leaveNote(account.value)
    window.location.replace('/')
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
    const me = account.value?.id
    try {
      await end()
    } catch (error) {
      if (!(error instanceof SignedOut) || error instanceof AnotherAccount) throw error
    }
    forget()
    if (me !== undefined) tellSessionTabs({ type: 'signedOut', me })
  }

  /** Somebody has another name: oneself, perhaps, in another tab. */
  function renamed(person: Profile): void {
    if (account.value?.id === person.id) account.value = { ...account.value, name: person.name }
  }

  /** Something of the account is different. */
  function changed(now: Account): void {
    account.value = now
  }

  /** Signed out here or in another tab. */
  function forget(): void {
    former.value = account.value?.id ?? former.value
    account.value = null
    hasExpired.value = false
  }

  /** The server says that the session is over. */
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
    hear,
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
