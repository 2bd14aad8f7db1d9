/** What is unread, per room, as the server counts it, and what arrived since. Pure. */
import type { Message, RoomUnread } from '@/api/records'
import { GENERAL, roomWith, type RoomKey } from './rooms'

export interface Unread {
  /** Exact up to 99; more only says that there are that many. */
  count: number
  /** The first unread message. */
  first: number | null
  /** The newest message that was considered. */
  upTo: number
}

export type UnreadRooms = Readonly<Partial<Record<RoomKey, Unread>>>

export const NOTHING_UNREAD: Unread = { count: 0, first: null, upTo: 0 }

/** A number of unread messages as it is shown everywhere. */
export const shownCount = (count: number): string => (count > 99 ? '99+' : String(count))

/** The room of what the server says is unread. */
export const roomOfUnread = ({ peer_id }: RoomUnread): RoomKey => (peer_id === null ? GENERAL : roomWith(peer_id))

/** A message of somebody else arrived; one that was considered already changes nothing. */
export function unreadAfterArrival(known: Unread = NOTHING_UNREAD, message: Message): Unread {
  if (message.id <= known.upTo) return known
  const counts = message.recipient_id === null || !message.is_read
  if (!counts) return { ...known, upTo: message.id }
  return { count: known.count + 1, first: known.first ?? message.id, upTo: message.id }
}

/** The reader has seen everything up to a message; of a part, only the server knows how much is left. */
export function unreadAfterReading(known: Unread = NOTHING_UNREAD, upTo: number): Unread {
  return upTo < known.upTo ? known : { count: 0, first: null, upTo }
}

/** What the server says, and the messages of others that are known to be newer. */
export function unreadAfterAnswer(
  known: Unread = NOTHING_UNREAD,
  answer: RoomUnread,
  newer: readonly Message[],
): Unread {
  const begun: Unread = {
    count: answer.unread_count,
    first: answer.first_unread_id,
    upTo: answer.last_message_id,
  }
  const counted = newer.reduce<Unread>(unreadAfterArrival, begun)
  // A message of a room that is not loaded arrived while the answer was on its way.
  const isBehind = known.upTo > counted.upTo && known.count > 0
  return isBehind ? { count: counted.count + 1, first: counted.first ?? known.upTo, upTo: known.upTo } : counted
}

/** The rooms of a whole list. Those that are not in it have nothing unread, unless they changed since it was asked for. */
export function unreadRoomsAfterList(
  known: UnreadRooms,
  asked: UnreadRooms,
  list: readonly RoomUnread[],
  newerIn: (key: RoomKey, than: number) => readonly Message[],
): UnreadRooms {
  const rooms: Partial<Record<RoomKey, Unread>> = {}
  for (const [key, unread] of Object.entries(known) as [RoomKey, Unread][]) {
    rooms[key] = unread === asked[key] ? { count: 0, first: null, upTo: unread.upTo } : unread
  }
  for (const room of list) {
    const key = roomOfUnread(room)
    rooms[key] = unreadAfterAnswer(known[key], room, newerIn(key, room.last_message_id))
  }
  return rooms
}
