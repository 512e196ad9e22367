// Pictures of every page for people to look at, in `screenshots/` (not kept in
// git); and the one thing about layout that a machine can judge: nothing sticks out.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { launchChromium, openPage } from './lib/chromium.mjs';
import { startGateway } from './lib/gateway.mjs';
import { playerIn } from './lib/pages.mjs';

const FOLDER = fileURLToPath(new URL('screenshots/', import.meta.url));

const PAGES = {
  lobby: { path: '/', ready: (page) => page.waitForSelector('.card') },
  play: {
    path: '/play/demo',
    ready: async (page) => {
      await playerIn(page, 'playing');
      await page.keyboard.press('s');
      await page.waitForFunction(() => /bit\/s/.test(document.querySelector('#stats').textContent));
    },
  },
  waiting: { path: '/play/nobody', ready: (page) => playerIn(page, 'waiting') },
  publish: { path: '/publish/studio', ready: (page) => page.waitForSelector('#go') },
};

let gateway;
let browser;

before(async () => {
  [gateway, browser] = await Promise.all([startGateway({ command: 'demo' }), launchChromium()]);
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
});

for (const colorScheme of ['dark', 'light']) {
  for (const [width, height] of [[1280, 800], [390, 844]]) {
    test(`pages fit ${width} pixels, ${colorScheme}`, async (t) => {
      const page = await openPage(browser, { colorScheme, viewport: { width, height } });
      t.after(() => page.context().close());
      for (const [name, { path, ready }] of Object.entries(PAGES)) {
        await page.goto(`${gateway.url}${path}`);
        await ready(page);
        await page.screenshot({ path: `${FOLDER}${name}-${colorScheme}-${width}.png`, fullPage: true });
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(overflow <= 0, `${name} is ${overflow} pixels too wide`);
      }
      assert.deepEqual(page.problems, []);
    });
  }
}
