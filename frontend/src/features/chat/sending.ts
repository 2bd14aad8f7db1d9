/** What the writer has in hand: drafts, and messages on their way to the server. */
import { ref, shallowRef } from 'vue'
import * as http from '@/api/chat'
import { newKey } from '@/shared/keys'
import type { ChatCore } from './core'
import { draftsAfter, keepDraft, loadDrafts, type Drafts } from './drafts'
import { keepQueue, loadQueue } from './queue'
import { personIn, type RoomKey } from './rooms'
import { Sender } from './sender'
import { asSent } from './text'

export function useSending({ state, room, me, apply, dispatch }: ChatCore, isConnected: () => boolean) {
  const drafts = shallowRef<Drafts>({})
  /** Until when the server accepts no more messages. Milliseconds since the epoch. */
  const slowedUntil = ref<number | null>(null)
  let sender: Sender | null = null

  /** Restores drafts and unsent messages; `pump` resumes sending. */
  function start(): void {
    drafts.value = loadDrafts(localStorage, me.value)
    for (const outgoing of loadQueue(sessionStorage, me.value)) apply({ type: 'queued', outgoing })
    sender = new Sender({
      state: () => state.value,
      dispatch,
      send: (one) => http.send(personIn(one.room), one.text, one.key),
      canTry: () => navigator.onLine,
      isConnected,
      slowedUntil: (time) => (slowedUntil.value = time),
    })
    window.addEventListener('online', resume)
  }

  function stop(): void {
    sender?.stop()
    sender = null
    slowedUntil.value = null
    window.removeEventListener('online', resume)
  }

  function pump(): void {
    sender?.pump()
  }

  function resume(): void {
    sender?.resume()
  }

  /** Keeps unsent messages through a reload. */
  function keep(): void {
    keepQueue(sessionStorage, me.value, state.value.outgoing)
  }

  /** Sends a text to the open room. */
  function send(text: string): void {
    const key = room.value
    if (key === null) return
    dispatch({
      type: 'queued',
      outgoing: {
        key: newKey(),
        room: key,
        text: asSent(text),
        status: 'waiting',
        problem: null,
        tries: 0,
        made_at: new Date().toISOString(),
        echo: null,
      },
    })
    pump()
  }

  function retry(key: string): void {
    dispatch({ type: 'retried', key })
    pump()
  }

  function discard(key: string): void {
    dispatch({ type: 'discarded', key })
  }

  /** Keeps a draft of `writer`, who may have signed out in the meantime. */
  function draft(writer: number, key: RoomKey, text: string): void {
    if (writer === me.value) drafts.value = draftsAfter(drafts.value, key, text)
    keepDraft(localStorage, writer, key, text)
  }

  return { drafts, slowedUntil, start, stop, pump, resume, keep, send, retry, discard, draft }
}
