/** A notification in words, and the page it is about. */
import type { Notification } from '@/api/records'
import { money } from '@/shared/money'

export interface NotificationText {
  title: string
  text: string
  icon: 'chat' | 'campaign' | 'wallet' | 'bell'
  /** A path on this site. */
  to: string
}

const DONE = {
  updated: 'changed',
  budget: 'changed the budget of',
  activated: 'activated',
  deactivated: 'stopped',
  deleted: 'deleted',
}

export function notificationText(notification: Notification): NotificationText {
  switch (notification.type) {
    case 'private_message': {
      const { sender, excerpt } = notification.data
      return {
        title: sender.name,
        text: excerpt || 'This message was deleted.',
        icon: 'chat',
        to: `/direct/${sender.id}`,
      }
    }
    case 'campaign_changed': {
      const { campaign_id, name, action, by } = notification.data
      return {
        title: name,
        text: `${by.name} ${DONE[action]} this campaign`,
        icon: 'campaign',
        to: action === 'deleted' ? '/campaigns' : `/campaigns/${campaign_id}`,
      }
    }
    case 'deposit':
    case 'withdrawal': {
      const { amount, balance, currency } = notification.data
      const isDeposit = notification.type === 'deposit'
      return {
        title: isDeposit ? 'Deposit received' : 'Withdrawal sent',
        text: `${isDeposit ? '+' : '−'}${money(amount, currency)}, balance ${money(balance, currency)}`,
        icon: 'wallet',
        to: '/wallet',
      }
    }
    default:
      return { title: 'Notification', text: '', icon: 'bell', to: '/notifications' }
  }
}
