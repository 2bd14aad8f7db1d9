import { copyFileSync, mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import type { Plugin } from 'vite'

/** Copies the API browser, which the portal's `/docs` page loads, beside the pages. */
export function docsAssets(): Plugin {
  let target = ''
  return {
    name: 'docs-assets',
    apply: 'build',
    configResolved(config) {
      target = join(config.root, config.build.outDir, 'docs-assets')
    },
    closeBundle() {
      const source = dirname(createRequire(import.meta.url).resolve('swagger-ui-dist/package.json'))
      mkdirSync(target, { recursive: true })
      for (const file of ['swagger-ui.css', 'swagger-ui-bundle.js', 'LICENSE', 'NOTICE']) {
        copyFileSync(join(source, file), join(target, file))
      }
      copyFileSync('src/docs/init.js', join(target, 'init.js'))
    },
  }
}
