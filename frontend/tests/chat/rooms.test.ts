import { expect, it } from 'vitest'
import { conversationChannel, GENERAL, personIn, roomOf, roomWith } from '@/features/chat/rooms'
import { ana, ben, said } from '../records'

it('orders the ids of a conversation as numbers', () => {
  expect(conversationChannel(10, 9)).toBe('private-chat.9.10')
  expect(conversationChannel(9, 10)).toBe('private-chat.9.10')
})

it('shows a direct message with the other person, whoever wrote it', () => {
  expect(roomOf(said({ id: 1, by: ana, to: ben }), ana.id)).toBe(roomWith(ben.id))
  expect(roomOf(said({ id: 1, by: ben, to: ana }), ana.id)).toBe(roomWith(ben.id))
  expect(roomOf(said({ id: 1 }), ana.id)).toBe(GENERAL)
})

it('knows whom a room is with', () => {
  expect(personIn(roomWith(12))).toBe(12)
  expect(personIn(GENERAL)).toBeNull()
})
