/** The user's choice of theme: light, dark, or the system's. `boot.js` applies it before the first paint. */
import { ref } from 'vue'

export type Choice = 'system' | 'light' | 'dark'

export const THEMES: readonly { value: Choice; label: string }[] = [
  { value: 'system', label: 'System' },
  { value: 'light', label: 'Light' },
  { value: 'dark', label: 'Dark' },
]

const KEY = 'smartlink.theme'
const system = matchMedia('(prefers-color-scheme: dark)')

function kept(): Choice {
  try {
    const found = localStorage.getItem(KEY)
    return found === 'light' || found === 'dark' ? found : 'system'
  } catch {
    return 'system'
  }
}

export const choice = ref<Choice>(kept())

function show(): void {
  const isDark = choice.value === 'dark' || (choice.value === 'system' && system.matches)
  document.documentElement.dataset['theme'] = isDark ? 'dark' : 'light'
}

system.addEventListener('change', show)
window.addEventListener('storage', ({ key }) => {
  if (key !== KEY && key !== null) return
  choice.value = kept()
  show()
})

export function chooseTheme(wanted: Choice): void {
  choice.value = wanted
  try {
    if (wanted === 'system') localStorage.removeItem(KEY)
    else localStorage.setItem(KEY, wanted)
  } catch {
    // Without storage the choice holds for this page.
  }
  show()
}
