/** Figures as text and as columns of charts. Pure. */

/** A time in seconds, and the values at that time. */
export type Sample<Name extends string = string> = Record<Name, number | null> & { at: number }

/** How a metric is drawn. */
export interface Curve<Name extends string = string> {
  name: Name
  label: string
  colour: '--accent' | '--chart-other'
}

/** Columns for charts: the times in seconds, then the values of each metric. */
export function columns<Name extends string>(
  points: readonly Sample<Name>[],
  names: readonly Name[],
): [number[], ...(number | null)[][]] {
  return [points.map(({ at }) => at), ...names.map((name) => points.map((one) => one[name]))]
}

export interface Range {
  min: number
  max: number
}

/** The range of a metric; null if there is no value. */
export function rangeOf<Name extends string>(points: readonly Sample<Name>[], name: Name): Range | null {
  const known = points.map((one): number | null => one[name]).filter((value) => value !== null)
  return known.length === 0
    ? null
    : { min: known.reduce((a, b) => Math.min(a, b)), max: known.reduce((a, b) => Math.max(a, b)) }
}

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 })
const fine = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 })

/** A metric as text; a dash for none. */
export function figure(value: number | null | undefined): string {
  if (value === null || value === undefined) return '–'
  return (Math.abs(value) < 100 ? fine : whole).format(value)
}
