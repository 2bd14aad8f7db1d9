/** Names of rooms: the general chat, or a direct conversation named by the other person's id. */

export type RoomKey = 'general' | `with:${number}`

export const GENERAL: RoomKey = 'general'

export function roomWith(personId: number): RoomKey {
  return `with:${personId}`
}

/** The other person of a direct conversation; null for the general chat. */
export function personIn(room: RoomKey): number | null {
  return room === 'general' ? null : Number(room.slice('with:'.length))
}

/** The channel of a direct conversation. Ids are ordered numerically. */
export function conversationChannel(one: number, other: number): `private-chat.${number}.${number}` {
  return `private-chat.${Math.min(one, other)}.${Math.max(one, other)}`
}

/** The room of a message, as seen by `me`. */
export function roomOf(message: { user_id: number; recipient_id: number | null }, me: number): RoomKey {
  if (message.recipient_id === null) return GENERAL
  return roomWith(message.user_id === me ? message.recipient_id : message.user_id)
}
