import { createPinia, setActivePinia } from 'pinia'
import { expect, it, vi } from 'vitest'
import * as http from '@/api/session'
import { buildRouter } from '@/app/router'
import { safeNext } from '@/features/users/next'
import { initials } from '@/shared/person'

it('goes back to a path of ours after signing in, and nowhere else', () => {
  expect(safeNext('/direct/2')).toBe('/direct/2')
  for (const elsewhere of [
    '//evil.example',
    '/\\evil.example',
    'https://evil.example',
    'javascript:1',
    undefined,
    ['/a'],
  ]) {
    expect(safeNext(elsewhere)).toBe('/')
  }
})

it('draws a person with the initials of the first and the last name', () => {
  expect(['Ana', 'Ana María Pérez', '李 小龙', '  ', '😀 smile'].map(initials)).toEqual(['A', 'AP', '李小', '?', '😀S'])
})

it('shows the pages of admins to admins only', async () => {
  const account = (is_admin: boolean) => ({ id: 1, name: 'Ana', email: 'ana@example.com', is_admin, created_at: '' })
  for (const [isAdmin, place] of [
    [false, '/'],
    [true, '/admin/users'],
  ] as const) {
    setActivePinia(createPinia())
    vi.spyOn(http, 'mayBeSignedIn').mockReturnValue(true)
    vi.spyOn(http, 'currentSession').mockResolvedValue({ account: account(isAdmin), eventId: 0 })
    const router = buildRouter()
    await router.push('/admin/users')
    expect(router.currentRoute.value.fullPath).toBe(place)
  }
})

it('asks nobody who is signed in where no session is', async () => {
  setActivePinia(createPinia())
  vi.spyOn(http, 'mayBeSignedIn').mockReturnValue(false)
  const asked = vi.spyOn(http, 'currentSession').mockClear()
  const router = buildRouter()
  await router.push('/wallet')

  expect(router.currentRoute.value.fullPath).toBe('/sign-in?next=/wallet')
  expect(asked).not.toHaveBeenCalled()
})
