/** The avatar of a person: initials, and a hue that differs between consecutive ids. */

export function initials(name: string): string {
  const words = name.trim().split(/\s+/u).filter(Boolean)
  const first = [...(words[0] ?? '?')][0] ?? '?'
  const last = words.length > 1 ? ([...(words[words.length - 1] ?? '')][0] ?? '') : ''
  return (first + last).toLocaleUpperCase()
}

/** Steps of the golden angle keep consecutive ids far apart on the wheel. */
export function hueOf(id: number): number {
  return Math.round((id * 137.508) % 360)
}
