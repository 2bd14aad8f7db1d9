/** What may be sent: 1 to 1000 code points, not all blank. The server decides. */

export const MAX_LENGTH = 1000
/** From this length on, the remaining characters are shown. */
export const COUNT_FROM = 900

/** Length in code points, not in UTF-16 units: an emoji outside the basic plane counts once. */
export function codePoints(text: string): number {
  return [...text].length
}

export function isBlank(text: string): boolean {
  return /^[\p{Z}\p{Cc}\p{Cf}\u2800\u3164\uffa0\u115f\u1160]*$/u.test(text)
}

/** The text as it is sent: without empty lines around it. */
export function asSent(text: string): string {
  return text
    .replace(/\r\n?/g, '\n')
    .replace(/^\s*\n/, '')
    .trimEnd()
}

const PICTURES = /^(?:\p{Extended_Pictographic}|\p{Emoji_Component}|\u200d|\ufe0f|\s)+$/u

/** Whether a text is just one to three emoji, which are shown large. */
export function isFewEmoji(text: string): boolean {
  if (text.length > 40 || !PICTURES.test(text) || !/\p{Extended_Pictographic}|\p{Regional_Indicator}/u.test(text)) {
    return false
  }
  const shown = [...new Intl.Segmenter(undefined, { granularity: 'grapheme' }).segment(text)]
  return shown.filter(({ segment }) => segment.trim() !== '').length <= 3
}
