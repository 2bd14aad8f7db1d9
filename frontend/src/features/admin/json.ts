/**
 * Checks typed JSON before it is sent: the value, or the problem and its position. Browsers report the position each in
 * their own words, or not at all, so the text is parsed here.
 */

export interface Problem {
  problem: string
  /** The position, counted from 1, in UTF-16 units. */
  line: number
  column: number
  offset: number
}

export type Checked = { ok: true; value: unknown } | ({ ok: false } & Problem)

const MAX_DEPTH = 50

class JsonError extends Error {
  constructor(
    message: string,
    readonly offset: number,
  ) {
    super(message)
  }
}

/** Parses the text, which must be an object. Raises nothing. */
export function checkedObject(text: string): Checked {
  try {
    new Parser(text).whole()
  } catch (error) {
    if (error instanceof JsonError) return failed(text, error.message, error.offset)
    throw error
  }
  const value: unknown = JSON.parse(text)
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ok: true, value }
  return failed(text, 'Data must be a JSON object: { … }', text.length - text.trimStart().length)
}

function failed(text: string, problem: string, offset: number): Checked {
  const before = text.slice(0, offset).split('\n')
  return { ok: false, problem, offset, line: before.length, column: (before.at(-1)?.length ?? 0) + 1 }
}

class Parser {
  private at = 0

  constructor(private readonly text: string) {}

  whole(): void {
    this.value(0)
    if (this.at < this.text.length) this.fail('Unexpected text after the end.')
  }

  private value(depth: number): void {
    if (depth > MAX_DEPTH) this.fail('Nested too deeply.')
    this.space()
    const first = this.text[this.at]
    if (first === undefined) this.fail('Unexpected end of text.')
    else if (first === '{') this.object(depth)
    else if (first === '[') this.array(depth)
    else if (first === '"') this.string()
    else if (first === '-' || (first >= '0' && first <= '9')) this.number()
    else this.word()
    this.space()
  }

  private object(depth: number): void {
    this.at += 1
    this.space()
    if (this.skips('}')) return
    for (;;) {
      this.space()
      if (this.text[this.at] !== '"') this.fail(this.isAtEnd ? 'Missing }.' : 'Expected a name in double quotes.')
      this.string()
      this.space()
      if (!this.skips(':')) this.fail('Expected : after the name.')
      this.value(depth + 1)
      if (this.skips('}')) return
      if (!this.skips(',')) this.fail(this.isAtEnd ? 'Missing }.' : 'Expected , or }.')
    }
  }

  private array(depth: number): void {
    this.at += 1
    this.space()
    if (this.skips(']')) return
    for (;;) {
      this.value(depth + 1)
      if (this.skips(']')) return
      if (!this.skips(',')) this.fail(this.isAtEnd ? 'Missing ].' : 'Expected , or ].')
    }
  }

  private string(): void {
    const start = this.at
    this.at += 1
    for (;;) {
      const one = this.text[this.at]
      if (one === undefined || one === '\n') {
        this.at = start
        this.fail('Missing closing quote.')
      } else if (one === '"') {
        this.at += 1
        return
      } else if (one < ' ') this.fail('Escape control characters as \\u00….')
      else if (one === '\\') {
        const escape = /^\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/.exec(this.text.slice(this.at, this.at + 6))
        if (escape === null) this.fail('Invalid escape sequence. Write \\\\ for a backslash.')
        this.at += escape?.[0].length ?? 1
      } else this.at += 1
    }
  }

  private number(): void {
    const start = this.at
    const sticky = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y
    sticky.lastIndex = start
    const found = sticky.exec(this.text)?.[0]
    if (found === undefined || /[\w.]/.test(this.text[start + found.length] ?? '')) this.fail('Invalid number.')
    const value = Number(found)
    if (!Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value))) {
      this.fail('This number would lose precision. Put it in quotes.')
    }
    this.at += found?.length ?? 0
  }

  private word(): void {
    for (const word of ['true', 'false', 'null']) {
      if (this.text.startsWith(word, this.at) && !/\w/.test(this.text[this.at + word.length] ?? '')) {
        this.at += word.length
        return
      }
    }
    const one = this.text[this.at] ?? ''
    this.fail(
      ',}]'.includes(one)
        ? 'Expected a value.'
        : one === "'"
          ? 'Use double quotes for text.'
          : 'Invalid value. Use double quotes for text.',
    )
  }

  private get isAtEnd(): boolean {
    return this.at >= this.text.length
  }

  private skips(one: string): boolean {
    if (this.text[this.at] !== one) return false
    this.at += 1
    return true
  }

  private space(): void {
    while (' \t\n\r'.includes(this.text[this.at] ?? 'x')) this.at += 1
  }

  private fail(problem: string): never {
    throw new JsonError(problem, this.at)
  }
}

/** The text, indented; unchanged if it is not JSON. */
export function formatJson(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2)
  } catch {
    return text
  }
}
