/** Money as text. Amounts stay text until here: the server does the arithmetic. */

const formats = new Map<string, Intl.NumberFormat>()

function format(currency: string): Intl.NumberFormat {
  const known = formats.get(currency)
  if (known) return known
  const made = new Intl.NumberFormat(undefined, { style: 'currency', currency })
  formats.set(currency, made)
  return made
}

export function money(amount: string, currency = 'EUR'): string {
  // Browsers format decimal text exactly; the type does not know it yet.
  return format(currency).format(amount as unknown as number)
}

/** A typed amount in the form the server takes; null if it is not valid. A comma counts as a point. */
export function typedAmount(text: string): string | null {
  const plain = text.trim().replace(/\s/gu, '').replace(',', '.')
  return /^(0|[1-9]\d{0,11})(\.\d{1,2})?$/.test(plain) && Number(plain) > 0 ? plain : null
}

/** Why a typed amount is not valid. */
export function amountProblem(text: string): string {
  const isHuge = /^\d{13,}([.,]\d{1,2})?$/.test(text.replace(/\s/gu, ''))
  return isHuge ? 'This amount is too large.' : 'Enter an amount above zero with up to two decimals, such as 12.50.'
}
