/** A notification in words, and the page it is about. */
import type { Notification, Profile } from '@/api/records'
import { money } from '@/shared/money'

export interface Worded {
  title: string
  text: string
  icon: 'chat' | 'campaign' | 'wallet' | 'bell'
  /** A path on this site. */
  to: string
}

const DONE: Record<string, string> = {
  updated: 'changed',
  budget: 'changed the budget of',
  activated: 'activated',
  deactivated: 'stopped',
  deleted: 'deleted',
}

export function worded({ type, data }: Notification): Worded {
  switch (type) {
    case 'private_message': {
      const sender = data['sender'] as Profile
      return { title: sender.name, text: String(data['excerpt']), icon: 'chat', to: `/direct/${sender.id}` }
    }
    case 'campaign_changed': {
      const by = data['by'] as Profile
      const isGone = data['action'] === 'deleted'
      return {
        title: String(data['name']),
        text: `${by.name} ${DONE[String(data['action'])] ?? 'changed'} this campaign`,
        icon: 'campaign',
        to: isGone ? '/campaigns' : `/campaigns/${Number(data['campaign_id'])}`,
      }
    }
    case 'deposit':
    case 'withdrawal': {
      const sum = (key: string) => money(String(data[key]), String(data['currency']))
      return {
        title: type === 'deposit' ? 'Deposit received' : 'Withdrawal sent',
        text: `${type === 'deposit' ? '+' : '−'}${sum('amount')}, balance ${sum('balance')}`,
        icon: 'wallet',
        to: '/wallet',
      }
    }
    default:
      return { title: 'Notification', text: type, icon: 'bell', to: '/notifications' }
  }
}
