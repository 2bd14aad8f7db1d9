/** Splits a text into plain parts and web addresses; nothing else is interpreted. */

export type TextPart = { kind: 'text'; text: string } | { kind: 'link'; text: string; href: string }

const ADDRESS = /\bhttps?:\/\/[^\s<>"'`\p{Cc}\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]+/giu
const CLOSING: Readonly<Record<string, string>> = { ')': '(', ']': '[', '}': '{' }

export function linkify(text: string): TextPart[] {
  const parts: TextPart[] = []
  let end = 0
  for (const match of text.matchAll(ADDRESS)) {
    const shown = trimmed(match[0])
    const href = safeAddress(shown)
    if (href === null) continue
    if (match.index > end) parts.push({ kind: 'text', text: text.slice(end, match.index) })
    parts.push({ kind: 'link', text: shown, href })
    end = match.index + shown.length
  }
  if (end < text.length) parts.push({ kind: 'text', text: text.slice(end) })
  return parts
}

/** Without the punctuation of the sentence around it; a closing bracket stays if it was opened inside. */
function trimmed(address: string): string {
  let end = address.length
  while (end > 0) {
    const last = address.charAt(end - 1)
    const opening = CLOSING[last]
    if (opening !== undefined) {
      const inside = address.slice(0, end)
      if (count(inside, opening) >= count(inside, last)) break
    } else if (!/[.,;:!?…»”’*_~]/u.test(last)) {
      break
    }
    end -= 1
  }
  return address.slice(0, end)
}

function count(text: string, character: string): number {
  return text.split(character).length - 1
}

function safeAddress(text: string): string | null {
  try {
    const url = new URL(text)
    const isWeb = url.protocol === 'http:' || url.protocol === 'https:'
    // A user name before the host would only mislead.
    return isWeb && url.hostname !== '' && url.username === '' && url.password === '' ? url.href : null
  } catch {
    return null
  }
}
