import { expect, it } from 'vitest'
import { connectionAfter, initialConnection, isUp, viewOf, type ConnectionEvent } from '@/realtime/connection'

const after = (...events: ConnectionEvent[]) => events.reduce(connectionAfter, initialConnection(true))
const socket = (state: 'connecting' | 'connected' | 'unavailable' | 'disconnected', now = 0): ConnectionEvent => ({
  type: 'socket',
  state,
  now,
})

it('is connected when the socket is', () => {
  const connection = after(socket('connecting'), socket('connected', 100))

  expect(isUp(connection)).toBe(true)
  expect(viewOf(connection, 100)).toEqual({ kind: 'connected' })
})

it('counts down the wait that was announced, although the socket still calls itself connected', () => {
  const connection = after(socket('connected'), { type: 'retryIn', seconds: 4, now: 1000 })

  expect(isUp(connection)).toBe(false)
  expect(viewOf(connection, 1000)).toEqual({ kind: 'waiting', seconds: 4 })
  expect(viewOf(connection, 4200)).toEqual({ kind: 'waiting', seconds: 1 })
  expect(viewOf(connection, 5000)).toEqual({ kind: 'connecting', again: true })
})

it('counts down to the next attempt of the series: after 15 s, then 30 s, then each 60 s', () => {
  const connection = after(socket('connected'), socket('connecting', 0), socket('unavailable', 10_000))

  expect(viewOf(connection, 1_000)).toEqual({ kind: 'connecting', again: true })
  expect(viewOf(connection, 5_000)).toEqual({ kind: 'waiting', seconds: 10 })
  expect(viewOf(connection, 15_100)).toEqual({ kind: 'connecting', again: true })
  expect(viewOf(connection, 20_000)).toEqual({ kind: 'waiting', seconds: 25 })
  expect(viewOf(connection, 50_000)).toEqual({ kind: 'waiting', seconds: 55 })
  expect(viewOf(connection, 160_000)).toEqual({ kind: 'waiting', seconds: 5 })
})

it('is offline without a network, and starts over when it is back', () => {
  const offline = after(socket('connecting', 0), { type: 'network', hasNetwork: false, now: 5_000 })
  const back = connectionAfter(offline, { type: 'network', hasNetwork: true, now: 20_000 })

  expect(viewOf(offline, 6_000)).toEqual({ kind: 'offline' })
  expect(viewOf(back, 20_100)).toEqual({ kind: 'connecting', again: false })
})

it('has ended when nobody will try again', () => {
  expect(viewOf(after(socket('connected'), socket('disconnected')), 0)).toEqual({ kind: 'ended' })
})
