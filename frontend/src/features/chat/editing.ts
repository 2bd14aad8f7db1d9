/** Editing and deleting one's own messages. */
import { shallowRef } from 'vue'
import * as http from '@/api/chat'
import { Conflict } from '@/api/errors'
import type { Message } from '@/api/records'
import { newKey } from '@/shared/keys'
import type { ChatCore } from './core'
import { roomIn } from './state'
import { asSent } from './text'

export function useEditing({ state, room, me, dispatch }: ChatCore) {
  /** The message that is being edited in the open room. */
  const editing = shallowRef<Message | null>(null)
  /** The change under way: trying again with its key never does it twice. */
  let attempt = { id: 0, text: '', key: '' }

  function isChangeable({ user_id, deleted_at }: Message): boolean {
    return user_id === me.value && deleted_at === null
  }

  function edit(message: Message): void {
    if (isChangeable(message)) editing.value = message
  }

  function stopEditing(): void {
    editing.value = null
  }

  /** Edits the last message of one's own in the open room. */
  function editLast(): void {
    const last = room.value === null ? undefined : roomIn(state.value, room.value).messages.findLast(isChangeable)
    if (last) edit(last)
  }

  /** Saves the text of the message that is being edited. Raises what the server answers. */
  async function saveEdit(written: string): Promise<void> {
    const message = editing.value
    if (!message) return
    const text = asSent(written)
    if (text !== message.message) {
      if (attempt.id !== message.id || attempt.text !== text) attempt = { id: message.id, text, key: newKey() }
      try {
        dispatch({ type: 'messageChanged', message: await http.edit(message.id, text, attempt.key) })
      } catch (error) {
        throw error instanceof Conflict ? new Conflict('This message was deleted.') : error
      }
    }
    if (editing.value === message) stopEditing()
  }

  /** Deletes a message. Raises what the server answers. */
  async function remove({ id }: Message): Promise<void> {
    dispatch({ type: 'messageChanged', message: await http.remove(id) })
  }

  /** A message was edited or deleted, here or elsewhere. */
  function changed({ id, deleted_at }: Message): void {
    if (deleted_at !== null && editing.value?.id === id) stopEditing()
  }

  return { editing, isChangeable, edit, editLast, stopEditing, saveEdit, remove, changed }
}
