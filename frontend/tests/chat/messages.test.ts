import { mount } from '@vue/test-utils'
import { createPinia, setActivePinia } from 'pinia'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { nextTick } from 'vue'
import { createMemoryHistory, createRouter } from 'vue-router'
import type { Message } from '@/api/records'
import MessageList from '@/features/chat/MessageList.vue'
import { GENERAL } from '@/features/chat/rooms'
import { chatAfter, initialChat, type ChatEvent, type Outgoing } from '@/features/chat/state'
import { useChat } from '@/features/chat/store'
import { ana, ben, said } from '../records'

beforeEach(() => setActivePinia(createPinia()))
afterEach(() => vi.restoreAllMocks())

async function list(...events: ChatEvent[]) {
  const chat = useChat()
  chat.state = events.reduce(chatAfter, initialChat(ana.id))
  const router = createRouter({
    history: createMemoryHistory(),
    routes: [{ path: '/:rest(.*)*', name: 'direct', component: { template: '<i/>' } }],
  })
  const wrapper = mount(MessageList, { props: { room: GENERAL, title: 'General' }, global: { plugins: [router] } })
  await nextTick()
  await nextTick()
  return wrapper
}

const loaded = (...messages: Message[]): ChatEvent => ({ type: 'roomLoaded', room: GENERAL, messages, hasOlder: false })

it('is a log that is read aloud politely', async () => {
  const log = (await list(loaded(said({ id: 1 })))).get('[role=log]')

  expect(log.attributes('aria-live')).toBe('polite')
  expect(log.attributes('aria-label')).toBe('Messages in General')
})

it('shows text as text', async () => {
  const text = '<img src=x onerror=alert(1)> javascript:alert(1)'
  const wrapper = await list(loaded(said({ id: 1, text })))

  expect(wrapper.get('[data-testid=message-text]').text()).toBe(text)
  expect(wrapper.find('img, a').exists()).toBe(false)
})

it('opens links in a page that knows nothing of this one', async () => {
  const link = (await list(loaded(said({ id: 1, text: 'see https://example.com/a' })))).get('a')

  expect(link.attributes()).toMatchObject({
    href: 'https://example.com/a',
    rel: 'noopener noreferrer',
    target: '_blank',
  })
})

it('lets each text choose its direction', async () => {
  const wrapper = await list(loaded(said({ id: 1, text: 'مرحبا' })))

  expect(wrapper.get('.body').attributes('dir')).toBe('auto')
})

it('names the author once for a group, and says who it is to those who listen', async () => {
  const wrapper = await list(loaded(said({ id: 1, by: ben }), said({ id: 2, by: ben }), said({ id: 3, by: ana })))

  expect(wrapper.findAll('.author')).toHaveLength(1)
  expect(wrapper.findAll('.body .visually-hidden').map((one) => one.text())).toEqual(['Ben:', 'You:', 'Sent'])
})

it('offers to retry or delete what failed, with the reason', async () => {
  const failed: Outgoing = {
    key: 'k',
    room: GENERAL,
    text: 'oh',
    status: 'failed',
    problem: 'Server error.',
    tries: 1,
    made_at: '2026-05-01T09:00:00Z',
    echo: null,
  }
  const wrapper = await list(loaded(), { type: 'queued', outgoing: failed })

  expect(wrapper.get('[role=alert]').text()).toContain('Not sent. Server error.')
  await wrapper.get('[data-testid=discard]').trigger('click')
  expect(useChat().state.outgoing).toEqual([])
})

it('says so when there is nothing yet, and when it did not load', async () => {
  expect((await list(loaded())).text()).toContain('No messages yet')
  expect((await list({ type: 'roomFailed', room: GENERAL, problem: 'Away.' })).text()).toContain('Away.')
})

it('counts below the fold what is new, not what was read before', async () => {
  vi.spyOn(HTMLElement.prototype, 'scrollHeight', 'get').mockReturnValue(2_000)
  vi.spyOn(HTMLElement.prototype, 'clientHeight', 'get').mockReturnValue(500)
  vi.spyOn(HTMLElement.prototype, 'offsetTop', 'get').mockReturnValue(1_000)
  useChat().firstNew = 4
  const wrapper = await list(loaded(...[1, 2, 3, 4, 5].map((id) => said({ id }))))
  await nextTick()

  expect(wrapper.get('[data-testid=to-end]').text()).toBe('2 new')
})
