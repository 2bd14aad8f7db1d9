/** What a search result shows of a message: a piece of it around the first word that was found, each found word marked. */

export interface Piece {
  text: string
  isFound: boolean
}

/** So much of a message is shown, about. */
const LENGTH = 140
/** So much of it stands before the first found word. */
const BEFORE = 40

const WORD = /[\p{L}\p{N}\p{M}]+/gu

/** Case and accents do not matter to the server's index either. */
const folded = (word: string): string => word.normalize('NFD').replace(/\p{M}/gu, '').toLowerCase()

const wordsOf = (text: string): string[] => (text.match(WORD) ?? []).map(folded)

/** Whether there is a word to look for. */
export const hasWord = (asked: string): boolean => wordsOf(asked).length > 0

/** A message in pieces. A word is found when it begins with one of those asked for. */
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

/** Cut between words where there are spaces, and never through a character. */
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
