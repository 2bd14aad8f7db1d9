import { readFileSync } from 'node:fs'
import type { Plugin } from 'vite'

const SOURCE = 'src/theme/boot.js'

/**
 * Puts the script that chooses the theme into the head, before the first paint, under a hashed name.
 * It is a file of its own because the content security policy forbids inline scripts.
 */
export function themeBoot(): Plugin {
  let reference = ''
  let building = false
  return {
    name: 'theme-boot',
    enforce: 'post',
    configResolved(config) {
      building = config.command === 'build'
    },
    buildStart() {
      if (building) {
        reference = this.emitFile({
          type: 'asset',
          name: 'theme-boot.js',
          source: readFileSync(SOURCE, 'utf8'),
        })
      }
    },
    generateBundle(_options, bundle) {
      const html = bundle['index.html']
      if (html?.type === 'asset') {
        html.source = String(html.source).replace(`/${SOURCE}`, `/${this.getFileName(reference)}`)
      }
    },
    transformIndexHtml: {
      order: 'post',
      handler: () => [{ tag: 'script', attrs: { src: `/${SOURCE}` }, injectTo: 'head' }],
    },
  }
}
