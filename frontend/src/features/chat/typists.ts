/** Who is typing in which room, and telling others about oneself. */
import { shallowRef } from 'vue'
import * as http from '@/api/chat'
import type { Profile } from '@/api/records'
import { named } from '@/features/users/names'
import type { ChatCore } from './core'
import { personIn, type RoomKey } from './rooms'
import { stillTyping, typistsAfter, type Typist } from './typing'

export function useTypists({ me }: ChatCore, isLive: () => boolean) {
  const typing = shallowRef<Readonly<Partial<Record<RoomKey, readonly Typist[]>>>>({})

  function receive(room: RoomKey, event: { user: Profile; typing: boolean }): void {
    if (event.user.id === me.value) return
    typing.value = { ...typing.value, [room]: typistsAfter(typing.value[room] ?? [], event, Date.now()) }
  }

  function sweep(now: number): void {
    const keys = Object.keys(typing.value) as RoomKey[]
    if (keys.some((key) => stillTyping(typing.value[key] ?? [], now) !== typing.value[key])) {
      typing.value = Object.fromEntries(keys.map((key) => [key, stillTyping(typing.value[key] ?? [], now)]))
    }
  }

  function renamed(person: Profile): void {
    typing.value = Object.fromEntries(
      Object.entries(typing.value).map(([key, typists]) => [key, typists?.map((one) => named(one, person))]),
    )
  }

  function clear(): void {
    typing.value = {}
  }

  /** Not repeated if it fails: the next key says it again, and a lost end expires by itself. */
  function sendTyping(room: RoomKey, isTyping: boolean): void {
    if (isLive()) http.sendTyping(personIn(room), isTyping).catch(() => undefined)
  }

  return { typing, receive, sweep, renamed, clear, sendTyping }
}
