/** The rows of a room, from top to bottom: days, grouped messages, the line above new ones, outgoing messages. */
import type { Message } from '@/api/records'
import { dayKey } from '@/shared/clock'
import type { Outgoing } from './state'

export interface MessageRow {
  kind: 'message'
  key: string
  message: Message
  isMine: boolean
  startsGroup: boolean
  endsGroup: boolean
  /** For the user's own messages: whether the server has it, a page of the recipient, or the recipient has read it. */
  mark: 'read' | 'delivered' | 'sent' | null
}

export interface OutgoingRow {
  kind: 'outgoing'
  key: string
  outgoing: Outgoing
  startsGroup: boolean
  endsGroup: boolean
}

export type TimelineRow =
  | { kind: 'edge'; key: 'older' | 'newer' }
  | { kind: 'day'; key: string; at: string }
  | { kind: 'new'; key: string }
  | MessageRow
  | OutgoingRow

export interface TimelineInput {
  me: number
  messages: readonly Message[]
  outgoing: readonly Outgoing[]
  rowKeys: Readonly<Record<number, string>>
  /** The first message that is new to the reader, or null. */
  firstNew: number | null
}

/** Consecutive messages of a person within this time form a group. */
const GROUP_MS = 5 * 60_000

interface Placed {
  author: number
  at: string
  row: MessageRow | OutgoingRow
}

export function timeline(input: TimelineInput): TimelineRow[] {
  const rows: TimelineRow[] = []
  let previous: Placed | null = null
  for (const placed of [...sent(input), ...underWay(input)]) {
    const { row, at, author } = placed
    const opensDay = previous === null || dayKey(previous.at) !== dayKey(at)
    const opensNew = row.kind === 'message' && row.message.id === input.firstNew
    if (opensDay) rows.push({ kind: 'day', key: `day-${row.key}`, at })
    if (opensNew) rows.push({ kind: 'new', key: 'new' })
    row.startsGroup =
      previous === null ||
      opensDay ||
      opensNew ||
      previous.author !== author ||
      Date.parse(at) - Date.parse(previous.at) > GROUP_MS
    if (previous) previous.row.endsGroup = row.startsGroup
    rows.push(row)
    previous = placed
  }
  return rows
}

function sent({ me, messages, rowKeys }: TimelineInput): Placed[] {
  return messages.map((message) => {
    const isMine = message.user_id === me
    return {
      author: message.user_id,
      at: message.created_at,
      row: {
        kind: 'message',
        key: rowKeys[message.id] ?? `message-${message.id}`,
        message,
        isMine,
        startsGroup: true,
        endsGroup: true,
        mark: isMine ? markOf(message) : null,
      },
    }
  })
}

function markOf({ recipient_id, is_read, delivered_at }: Message): MessageRow['mark'] {
  if (recipient_id === null) return 'sent'
  if (is_read) return 'read'
  return delivered_at === null ? 'sent' : 'delivered'
}

function underWay({ me, outgoing }: TimelineInput): Placed[] {
  return outgoing.map((one) => ({
    author: me,
    at: one.made_at,
    row: { kind: 'outgoing', key: one.key, outgoing: one, startsGroup: true, endsGroup: true },
  }))
}
