/** What a reader can do with a message. */
import { ref } from 'vue'
import type { Message } from '@/api/records'
import type { Confirmation } from '@/shared/ConfirmDialog.vue'
import type { IconName } from '@/shared/Icon.vue'
import { useChat } from './store'

export interface Action {
  name: string
  label: string
  icon: IconName
  /** The key that does the same on a message with the focus. */
  key?: string
  /** Whether it is a button of its own beside the message. */
  isQuick?: boolean
  isDestructive?: boolean
  act(): unknown
}

export interface ActionPorts {
  /** Whether the reader may see earlier texts. */
  isAdmin(): boolean
  ask(question: Confirmation): void
  showHistory(message: Message): void
}

const NOTICE_MS = 2500

export function useActions({ isAdmin, ask, showHistory }: ActionPorts) {
  const chat = useChat()
  /** What was just done, or why it could not be done. */
  const notice = ref('')
  let timer: ReturnType<typeof setTimeout> | undefined

  function tell(words: string): void {
    notice.value = words
    clearTimeout(timer)
    timer = setTimeout(() => (notice.value = ''), NOTICE_MS)
  }

  async function copy(text: string, done: string): Promise<void> {
    try {
      await navigator.clipboard.writeText(text)
      tell(done)
    } catch (error) {
      // Without TLS there is no clipboard.
      tell(`Couldn't copy. ${error instanceof DOMException ? error.message : 'The browser allows it over HTTPS only.'}`)
    }
  }

  function askToDelete(message: Message): void {
    ask({
      title: 'Delete this message?',
      text: 'Its text is deleted for everyone. What remains says that you deleted a message.',
      action: 'Delete',
      isDestructive: true,
      act: () => chat.remove(message),
    })
  }

  /** The actions on a message, in the order of the menu. */
  function actionsOn(message: Message): Action[] {
    const isThere = message.deleted_at === null
    const isMine = chat.isChangeable(message)
    const hasHistory = isAdmin() && message.recipient_id === null && message.version > 1
    const all: (Action | false)[] = [
      isThere && {
        name: 'copy',
        label: 'Copy text',
        icon: 'copy',
        key: 'C',
        act: () => copy(message.message, 'Copied.'),
      },
      isMine && { name: 'edit', label: 'Edit', icon: 'edit', key: 'E', isQuick: true, act: () => chat.edit(message) },
      hasHistory && { name: 'history', label: 'Earlier texts', icon: 'clock', act: () => showHistory(message) },
      isMine && {
        name: 'delete',
        label: 'Delete',
        icon: 'trash',
        key: 'Del',
        isDestructive: true,
        act: () => askToDelete(message),
      },
    ]
    return all.filter((action) => action !== false)
  }

  return { notice, tell, actionsOn }
}

/** The action that a key on a message stands for. */
export function actionFor(event: KeyboardEvent, actions: readonly Action[]): Action | undefined {
  if (event.ctrlKey || event.metaKey || event.altKey) return undefined
  const pressed = event.key === 'Delete' ? 'DEL' : event.key.toUpperCase()
  return actions.find(({ key }) => key?.toUpperCase() === pressed)
}
