import { fileURLToPath } from 'node:url'
import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vitest/config'
import { client } from './build/client'
import { compressed } from './build/compressed'
import { docsAssets } from './build/docs-assets'
import { themeBoot } from './build/theme-boot'

const portal = process.env['PORTAL_URL'] ?? 'http://127.0.0.1:8000'

export default defineConfig({
  plugins: [vue(), themeBoot(), docsAssets(), client(), compressed()],
  resolve: {
    alias: {
      '@': fileURLToPath(new URL('./src', import.meta.url)),
      '@smartlink/echo': fileURLToPath(new URL('../clients/js/src/echo.ts', import.meta.url)),
    },
  },
  build: {
    outDir: '../src/smartlink/portal/static',
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  experimental: {
    // Scripts and styles find each other relative to themselves, so only index.html names the place
    // that static files are served from (ASSET_URL).
    renderBuiltUrl: (_file, { hostType }) => (hostType === 'html' ? undefined : { relative: true }),
  },
  server: {
    host: '127.0.0.1',
    proxy: { '/api': portal, '/broadcasting': portal },
  },
  test: {
    environment: 'happy-dom',
    include: ['tests/**/*.test.ts'],
    restoreMocks: true,
    // A machine under load is no fault of a test's.
    testTimeout: 30_000,
  },
})
