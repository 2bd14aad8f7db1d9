import { mount } from '@vue/test-utils'
import { createPinia, setActivePinia } from 'pinia'
import { beforeEach, expect, it } from 'vitest'
import Composer from '@/features/chat/Composer.vue'
import { keepDraft, loadDrafts } from '@/features/chat/drafts'
import { GENERAL } from '@/features/chat/rooms'
import { initialChat } from '@/features/chat/state'
import { useChat } from '@/features/chat/store'

beforeEach(() => {
  localStorage.clear()
  setActivePinia(createPinia())
})

function composer() {
  const wrapper = mount(Composer, { props: { room: GENERAL, title: 'General' }, attachTo: document.body })
  const field = wrapper.get<HTMLTextAreaElement>('textarea')
  return { wrapper, field, sent: () => (wrapper.emitted('send') ?? []).map(([text]) => text) }
}

it('sends with Enter and is empty again', async () => {
  const { field, sent } = composer()
  await field.setValue('hello')
  await field.trigger('keydown', { key: 'Enter' })

  expect(sent()).toEqual(['hello'])
  expect(field.element.value).toBe('')
})

it('starts a line with Shift+Enter', async () => {
  const { field, sent } = composer()
  await field.setValue('hello')
  await field.trigger('keydown', { key: 'Enter', shiftKey: true })

  expect(sent()).toEqual([])
})

it.each([{ isComposing: true }, { keyCode: 229 }])('leaves Enter to an input method: %o', async (how) => {
  const { field, sent } = composer()
  await field.setValue('にほ')
  await field.trigger('keydown', { key: 'Enter', ...how })

  expect(sent()).toEqual([])
})

it('does not send what nobody could see', async () => {
  const { wrapper, field, sent } = composer()
  await field.setValue('  \n\u200b')
  await field.trigger('keydown', { key: 'Enter' })

  expect(sent()).toEqual([])
  expect(wrapper.get('button').attributes('disabled')).toBeDefined()
})

it('counts code points near the end, and sends a thousand emoji but not one more', async () => {
  const { wrapper, field, sent } = composer()
  await field.setValue('😀'.repeat(899))
  expect(wrapper.find('[data-testid=counter]').exists()).toBe(false)

  await field.setValue('😀'.repeat(1001))
  expect(wrapper.get('[data-testid=counter]').text()).toBe('1 character over the limit')
  await field.trigger('keydown', { key: 'Enter' })
  expect(sent()).toEqual([])

  await field.setValue('😀'.repeat(1000))
  expect(wrapper.get('[data-testid=counter]').text()).toBe('0 characters left')
  await field.trigger('keydown', { key: 'Enter' })
  expect(sent()).toHaveLength(1)
})

it('goes on with the draft of its room', () => {
  useChat().draft(0, GENERAL, 'half a thought')

  expect(composer().field.element.value).toBe('half a thought')
})

it('leaves alone what is begun in another tab', async () => {
  useChat().state = initialChat(1)
  const { wrapper } = composer()
  keepDraft(localStorage, 1, GENERAL, 'begun elsewhere')
  wrapper.unmount()
  expect(loadDrafts(localStorage, 1)).toEqual({ [GENERAL]: 'begun elsewhere' })

  const { wrapper: here, field } = composer()
  await field.setValue('begun here')
  here.unmount()
  expect(loadDrafts(localStorage, 1)).toEqual({ [GENERAL]: 'begun here' })
})

it('keeps all of what was pasted when the session ends in the same moment', async () => {
  const chat = useChat()
  chat.state = initialChat(1)
  const { wrapper, field } = composer()
  await field.setValue('pasted')
  chat.stop()
  wrapper.unmount()

  expect(loadDrafts(localStorage, 1)).toEqual({ [GENERAL]: 'pasted' })
})
