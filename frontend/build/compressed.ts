import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'
import type { Plugin } from 'vite'

const TEXT = /\.(?:js|css|html|svg|json)$/
/** Below this, headers weigh more than what is saved. */
const LEAST_BYTES = 1024
/** The best level takes seconds for the API browser, which few people open. */
const LARGE_BYTES = 500_000

/** Writes each text file a second and third time, as brotli and gzip: the portal sends what the browser understands. */
export function compressed(): Plugin {
  let target = ''
  return {
    name: 'compressed',
    apply: 'build',
    configResolved(config) {
      target = join(config.root, config.build.outDir)
    },
    closeBundle: {
      order: 'post',
      sequential: true,
      handler() {
        for (const name of readdirSync(target, { recursive: true, encoding: 'utf8' })) {
          const path = join(target, name)
          if (TEXT.test(name) && statSync(path).size >= LEAST_BYTES) compress(path)
        }
      },
    },
  }
}

function compress(path: string): void {
  const content = readFileSync(path)
  const quality = content.length > LARGE_BYTES ? 9 : 11
  writeFileSync(`${path}.br`, brotliCompressSync(content, { params: { [constants.BROTLI_PARAM_QUALITY]: quality } }))
  writeFileSync(`${path}.gz`, gzipSync(content, { level: 9 }))
}
