import { mount } from '@vue/test-utils'
import { expect, it } from 'vitest'
import App from '@/app/App.vue'

it('opens with its name', () => {
  expect(mount(App).get('h1').text()).toBe('SmartLink')
})
