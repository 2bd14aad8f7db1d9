import { mount } from '@vue/test-utils'
import { createPinia, setActivePinia } from 'pinia'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { h, nextTick } from 'vue'
import { createMemoryHistory, createRouter } from 'vue-router'
import type { Message } from '@/api/records'
import MessageBubble from '@/features/chat/MessageBubble.vue'
import MessageList from '@/features/chat/MessageList.vue'
import { GENERAL } from '@/features/chat/rooms'
import { chatAfter, initialChat, type ChatEvent, type Outgoing } from '@/features/chat/state'
import { useChat } from '@/features/chat/store'
import { timeline } from '@/features/chat/timeline'
import { ana, ben, said } from '../records'

beforeEach(() => setActivePinia(createPinia()))
afterEach(() => vi.restoreAllMocks())

/** The bubbles of these messages, below each other: the list itself only renders what is in view. */
function bubbles(messages: Message[], outgoing: Outgoing[] = [], on: Record<string, (key: string) => void> = {}) {
  const rows = timeline({ me: ana.id, messages, outgoing, rowKeys: {}, firstNew: null })
  return mount(() =>
    rows.map((row) =>
      row.kind === 'message' || row.kind === 'outgoing' ? h(MessageBubble, { row, showsAuthor: true, ...on }) : [],
    ),
  )
}

async function list(...events: ChatEvent[]) {
  const chat = useChat()
  chat.state = events.reduce(chatAfter, initialChat(ana.id))
  chat.hasBegun = true
  const router = createRouter({
    history: createMemoryHistory(),
    routes: [{ path: '/:rest(.*)*', name: 'direct', component: { template: '<i/>' } }],
  })
  const wrapper = mount(MessageList, {
    props: { room: GENERAL, title: 'General' },
    attachTo: document.body,
    global: { plugins: [router] },
  })
  for (let turn = 0; turn < 6; turn += 1) await nextTick()
  return wrapper
}

const loaded = (...messages: Message[]): ChatEvent => ({ type: 'roomLoaded', room: GENERAL, messages, hasOlder: false })

it('is a log that is read aloud politely', async () => {
  const log = (await list(loaded(said({ id: 1 })))).get('[role=log]')

  expect(log.attributes('aria-live')).toBe('polite')
  expect(log.attributes('aria-label')).toBe('Messages in General')
})

it('shows text as text', () => {
  const text = '<img src=x onerror=alert(1)> javascript:alert(1)'
  const wrapper = bubbles([said({ id: 1, text })])

  expect(wrapper.get('[data-testid=message-text]').text()).toBe(text)
  expect(wrapper.find('img, a').exists()).toBe(false)
})

it('opens links in a page that knows nothing of this one', () => {
  const link = bubbles([said({ id: 1, text: 'see https://example.com/a' })]).get('a')

  expect(link.attributes()).toMatchObject({
    href: 'https://example.com/a',
    rel: 'noopener noreferrer',
    target: '_blank',
  })
})

it('lets each text choose its direction', () => {
  const wrapper = bubbles([said({ id: 1, text: 'مرحبا' })])

  expect(wrapper.get('.bubble').attributes('dir')).toBe('auto')
})

it('names the author once for a group, and says who it is to those who listen', () => {
  const wrapper = bubbles([said({ id: 1, by: ben }), said({ id: 2, by: ben }), said({ id: 3, by: ana })])

  expect(wrapper.findAll('.author')).toHaveLength(1)
  expect(wrapper.findAll('.bubble .visually-hidden').map((one) => one.text())).toEqual(['Ben:', 'You:', 'Sent'])
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
  const discarded = vi.fn()
  const wrapper = bubbles([], [failed], { onDiscard: discarded })

  expect(wrapper.get('[role=alert]').text()).toContain('Not sent. Server error.')
  await wrapper.get('[data-testid=discard]').trigger('click')
  expect(discarded).toHaveBeenCalledWith('k')
})

it('says so when there is nothing yet, and when it did not load', async () => {
  expect((await list(loaded())).text()).toContain('No messages yet')
  expect((await list({ type: 'roomFailed', room: GENERAL, problem: 'Away.' })).text()).toContain('Away.')
})
