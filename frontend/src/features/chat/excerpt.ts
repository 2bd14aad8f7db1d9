/** The excerpt of a message in a search result: the text around the first match, with all matches marked. */

export interface Piece {
  text: string
  isFound: boolean
}

/** About how many characters are shown. */
const LENGTH = 140
/** How many of them stand before the first match. */
const BEFORE = 40

const WORD = /[\p{L}\p{N}\p{M}]+/gu

/** Ignores case and accents, as the server's index does. */
const folded = (word: string): string => word.normalize('NFD').replace(/\p{M}/gu, '').toLowerCase()

const wordsOf = (text: string): string[] => (text.match(WORD) ?? []).map(folded)

/** Whether a query contains a word. */
export const hasWord = (asked: string): boolean => wordsOf(asked).length > 0

/** Splits a message into pieces. A word matches if it begins with a word of the query. */
export function excerpt(message: string, asked: string): Piece[] {
  const wanted = wordsOf(asked)
  const found = [...message.matchAll(WORD)]
    .filter(([word]) => wanted.some((one) => folded(word).startsWith(one)))
    .map(({ 0: word, index }) => ({ from: index, to: index + word.length }))
  const [from, to] = bounds(message, found[0]?.from ?? 0)
  const pieces: Piece[] = []
  let at = from
  const add = (text: string, isFound: boolean) => text !== '' && pieces.push({ text, isFound })
  if (from > 0) add('…', false)
  for (const one of found) {
    if (one.from < from || one.to > to) continue
    add(message.slice(at, one.from), false)
    add(message.slice(one.from, one.to), true)
    at = one.to
  }
  add(message.slice(at, to), false)
  if (to < message.length) add('…', false)
  return pieces
}

/** Cuts at spaces where possible, and never within a character. */
function bounds(message: string, first: number): [number, number] {
  let from = Math.max(0, first - BEFORE)
  if (from > 0) {
    const space = message.indexOf(' ', from)
    from = space >= 0 && space < first ? space + 1 : whole(message, from)
  }
  let to = Math.min(message.length, from + LENGTH)
  if (to < message.length) {
    const space = message.lastIndexOf(' ', to)
    to = space > first ? space : whole(message, to)
  }
  return [from, to]
}

function whole(message: string, at: number): number {
  const code = message.charCodeAt(at)
  return code >= 0xdc00 && code <= 0xdfff ? at - 1 : at
}
