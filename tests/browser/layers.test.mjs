// A viewer chooses among simulcast layers in the player's menu.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launchChromium, openPage } from './lib/chromium.mjs';
import { startGateway } from './lib/gateway.mjs';
import { playFrames, playerIn, publish, stats } from './lib/pages.mjs';

let gateway;
let browser;

before(async () => {
  [gateway, browser] = await Promise.all([startGateway(), launchChromium()]);
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
});

/** Waits until the picture has the height that a layer's label names. */
function pictureOf(page, label) {
  const height = Number.parseInt(label, 10);
  return page.waitForFunction((wanted) => document.querySelector('video').videoHeight === wanted, height, {
    timeout: 15_000,
  });
}

// VP8 and VP9 have picture numbers of their own in each layer; AV1 has them in an
// extension that the gateway does not use (decision 0013); H264 has none.
for (const codec of ['H264', 'VP8', 'VP9', 'AV1']) {
  test(`layers of ${codec} are chosen in the menu, and no picture is lost`, async (t) => {
    const [dealer, viewer] = await Promise.all([openPage(browser), openPage(browser)]);
    t.after(() => Promise.all([dealer, viewer].map((page) => page.context().close())));
    await publish(dealer, gateway.url, `menu-${codec}`, { simulcast: true, codec });
    await dealer.waitForFunction(() => document.querySelectorAll('#layers tr').length === 3, null, { timeout: 15_000 });
    await viewer.goto(`${gateway.url}/play/menu-${codec}?transport=webrtc`);
    await playerIn(viewer, 'playing');
    await viewer.waitForSelector('#quality', { state: 'visible', timeout: 15_000 });
    await viewer.focus('#quality');
    await viewer.waitForFunction(() => document.querySelectorAll('#quality option').length >= 3, null, { timeout: 15_000 });
    const labels = await viewer.$$eval('#quality option', (options) => options.map((option) => option.label));
    assert.match(labels[0], /^Auto/);
    for (const label of [labels.at(-1), labels[1], labels.at(-1)]) {
      await viewer.selectOption('#quality', { label });
      await pictureOf(viewer, label);
      await playFrames(viewer, 30, 20_000);
    }
    await viewer.selectOption('#quality', { index: 0 });
    await playFrames(viewer, 30, 20_000);
    const { freezeCount } = await stats(viewer);
    assert.equal(freezeCount, 0);
    // VP8 has no place in LL-HLS: only the sound is there, and nothing to choose.
    await viewer.check('#transport input[value=llhls]', { force: true });
    assert.equal(await viewer.isVisible('#quality'), false);
    assert.deepEqual([...dealer.problems, ...viewer.problems], []);
  });
}
