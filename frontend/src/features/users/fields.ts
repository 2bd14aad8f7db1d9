/** The errors of a form: those of its fields, and one that belongs to none. */
import { nextTick, ref } from 'vue'
import { ValidationFailed, describeError, RateLimited } from '@/api/errors'

export type FieldErrors = Readonly<Record<string, string>>

/** The first error of each field; empty for other errors. */
export function fieldErrors(error: unknown): FieldErrors {
  if (!(error instanceof ValidationFailed)) return {}
  return Object.fromEntries(Object.entries(error.errors).map(([field, texts]) => [field, texts[0] ?? error.message]))
}

/** The server's limit for names, in characters. */
const MAX_NAME_LENGTH = 100

/** Why a name is not valid; null if it is. */
export function nameProblem(name: string): string | null {
  if (name.trim() === '') return 'Enter the name others will see.'
  return [...name.trim()].length > MAX_NAME_LENGTH ? `Use at most ${MAX_NAME_LENGTH} characters.` : null
}

export function useForm(form: () => HTMLElement | null) {
  const errors = ref<FieldErrors>({})
  const failure = ref<string | null>(null)
  const isBusy = ref(false)

  async function show(found: FieldErrors): Promise<void> {
    errors.value = found
    await nextTick()
    form()?.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus()
  }

  /** Runs `act` unless something is missing. Resolves to whether it succeeded. */
  async function submit(missing: FieldErrors, act: () => Promise<void>): Promise<boolean> {
    if (isBusy.value) return false
    failure.value = null
    errors.value = {}
    if (Object.keys(missing).length > 0) {
      await show(missing)
      return false
    }
    isBusy.value = true
    try {
      await act()
      return true
    } catch (error) {
      const found = fieldErrors(error)
      if (error instanceof RateLimited || Object.keys(found).length === 0) failure.value = describeError(error)
      else await show(found)
      return false
    } finally {
      isBusy.value = false
    }
  }

  return { errors, failure, isBusy, submit }
}
