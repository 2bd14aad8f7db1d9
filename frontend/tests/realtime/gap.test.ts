import { expect, it } from 'vitest'
import type { RecordedEvent, RecordedEvents } from '@/api/records'
import { Follower } from '@/realtime/gap'

/** A channel as the server keeps it, and a page that follows it. */
function following({ keptFrom = 1 } = {}) {
  const recorded: RecordedEvent[] = []
  const applied: number[] = []
  const reloads: number[] = []
  const world = { beforeAnswer: (): unknown => undefined }
  const follower = new Follower({
    channel: 'chat',
    fetchAfter: (_channel, after): Promise<RecordedEvents> => {
      world.beforeAnswer()
      const events = recorded.filter(({ eventId }) => eventId > after).slice(0, 2)
      return Promise.resolve({ events, complete: after >= keptFrom - 1 })
    },
    apply: ({ eventId }) => applied.push(eventId),
    reload: () => {
      const last = recorded.at(-1)?.eventId ?? 0
      reloads.push(last)
      return Promise.resolve(last)
    },
  })
  const publish = (...ids: number[]) => ids.forEach((eventId) => recorded.push({ eventId, name: 'E', payload: {} }))
  const receive = (...ids: number[]) => ids.forEach((id) => follower.received(id) && applied.push(id))
  return { follower, applied, reloads, publish, receive, world }
}

it('fetches what came between the list and the subscription', async () => {
  const { follower, applied, publish } = following()
  publish(1, 2, 3, 4, 5)
  follower.loaded(2)
  await follower.close()

  expect(applied).toEqual([3, 4, 5])
  expect(follower.hasGapToClose).toBe(false)
})

it('applies what comes over the socket once', async () => {
  const { follower, applied, receive } = following()
  follower.loaded(0)
  await follower.close()
  receive(1, 2, 2, 1, 3)

  expect(applied).toEqual([1, 2, 3])
})

it('does not take an event after a loss for proof that nothing is missing', async () => {
  const { follower, applied, publish, receive } = following()
  follower.loaded(0)
  await follower.close()
  publish(1)
  receive(1)
  follower.lost()
  publish(2, 3, 4)
  receive(4)
  await follower.close()

  expect(applied.toSorted()).toEqual([1, 2, 3, 4])
  publish(5)
  receive(4, 5)
  expect(applied.toSorted()).toEqual([1, 2, 3, 4, 5])
})

it('leaves the gap open when the connection is lost while closing it', async () => {
  const { follower, applied, publish, world } = following()
  publish(1, 2)
  follower.loaded(0)
  world.beforeAnswer = () => follower.lost()
  await follower.close()
  expect(applied).toEqual([])
  expect(follower.hasGapToClose).toBe(true)

  world.beforeAnswer = () => undefined
  await follower.close()
  expect(applied).toEqual([1, 2])
})

it('loads the list again when the server keeps no events that old', async () => {
  const { follower, applied, reloads, publish } = following({ keptFrom: 50 })
  publish(50, 51)
  follower.loaded(10)
  await follower.close()

  expect(reloads).toEqual([51])
  expect(applied).toEqual([])
  expect(follower.hasGapToClose).toBe(false)
})

it('applies anew what was received while a list that does not hold it was on its way', async () => {
  const { follower, applied, publish, receive } = following()
  publish(1, 2)
  receive(1, 2)
  follower.loaded(1)
  await follower.close()

  expect(applied).toEqual([1, 2, 2])
  receive(2)
  expect(applied).toEqual([1, 2, 2])
})

it('has nothing to close before its list is loaded', async () => {
  const { follower, applied, publish, receive } = following()
  publish(1)
  await follower.close()
  receive(1)
  follower.loaded(1)
  await follower.close()

  expect(applied).toEqual([1])
})

it('asks for nothing when the server sends again what was missed', async () => {
  const { follower, applied, receive } = following()
  follower.loaded(0)
  await follower.close()
  receive(1, 2)
  follower.lost()
  follower.resumed()
  receive(2, 3, 4)

  expect(applied).toEqual([1, 2, 3, 4])
  expect(follower.hasGapToClose).toBe(false)
})

it('still fetches what was missing before the connection was lost', async () => {
  const { follower, applied, publish, receive } = following()
  publish(1, 2)
  follower.loaded(0)
  follower.lost()
  follower.resumed()
  receive(3)
  expect(follower.hasGapToClose).toBe(true)
  publish(3)
  await follower.close()

  expect(applied.toSorted()).toEqual([1, 2, 3])
})

it('fetches what the server cannot send again, also after the next loss', async () => {
  const { follower, applied, publish, receive } = following()
  follower.loaded(0)
  await follower.close()
  follower.lost()
  publish(1, 2)
  follower.notResumed()
  follower.lost()
  follower.resumed()
  receive(3)
  publish(3)
  expect(follower.hasGapToClose).toBe(true)
  await follower.close()

  expect(applied.toSorted()).toEqual([1, 2, 3])
})

it('applies once what arrived while the browser took itself for offline', async () => {
  const { follower, applied, receive } = following()
  follower.loaded(0)
  await follower.close()
  follower.lost()
  receive(1, 2)
  follower.resumed()
  receive(1, 2, 3)

  expect(applied).toEqual([1, 2, 3])
})
