// Three pages, one build. The gateway serves `dist/` from its own binary: the
// pages at `/`, `/play/{table}` and `/publish/{table}`, the rest below `/assets/`.
// `npm run dev` does the same with a gateway at RAILBIRD_URL behind it.

import { defineConfig, type Plugin } from 'vite';

const gateway = process.env['RAILBIRD_URL'] ?? 'http://127.0.0.1:8080';

/** Gives the development server the gateway's page routes. */
const pageRoutes: Plugin = {
  name: 'railbird-page-routes',
  configureServer(server) {
    server.middlewares.use((request, _response, next) => {
      const page = /^\/(play|publish)(?:\/[\w-]*)?(\?.*)?$/.exec(request.url ?? '');
      if (page) request.url = `/${page[1]}.html${page[2] ?? ''}`;
      next();
    });
  },
};

export default defineConfig({
  appType: 'mpa',
  plugins: [pageRoutes],
  server: {
    proxy: Object.fromEntries(['/api', '/whip', '/whep', '/hls'].map((path) => [path, gateway])),
  },
  build: {
    target: 'es2022',
    // Nothing is inlined, so that the gateway can forbid inline code (CSP).
    assetsInlineLimit: 0,
    // hls.js is large, and loaded only by those who need it.
    chunkSizeWarningLimit: 700,
    modulePreload: { polyfill: false },
    rolldownOptions: { input: ['index.html', 'play.html', 'publish.html'] },
  },
});
