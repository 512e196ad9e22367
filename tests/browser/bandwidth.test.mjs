// A viewer's path narrows and widens: the gateway follows with the simulcast layer, and
// the picture goes on. Chromium sees it through `loadgen impair`, which stands between
// its WHEP session's media and the gateway.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launchChromium, openPage } from './lib/chromium.mjs';
import { startGateway } from './lib/gateway.mjs';
import { narrowPath, publishPattern } from './lib/loadgen.mjs';
import { playerIn, recordPicture, stats, waitForHeight } from './lib/pages.mjs';

/** Of the test pattern's top layer; the others take a quarter and a sixteenth of it. */
const BITRATE = '1200k';
const WIDE = '3000k';
const NARROW = '600k';
/** From a path that narrows to the lower layer's picture: a second, on an idle machine. */
const DOWN_WITHIN_MS = 10_000;
/** The gateway waits 10 s after trouble, and then for a path that is quiet for 8 s. */
const UP_WITHIN_MS = 60_000;
/**
 * The path's queue of 300 ms fills before anybody can know, and is empty again after the
 * same time; on a machine that is busy with other things a picture may take as long.
 */
const LONGEST_GAP_MS = 1_000;

let gateway;
let browser;

before(async () => {
  [gateway, browser] = await Promise.all([startGateway(), launchChromium()]);
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
});

/** Waits until the picture has been of the best layer for three seconds. */
function settled(page) {
  const best = () => {
    const now = performance.now();
    const is = document.querySelector('video').videoHeight === 720;
    window.bestSince = is ? (window.bestSince ?? now) : null;
    return is && now - window.bestSince > 3_000;
  };
  return page.waitForFunction(best, null, { timeout: UP_WITHIN_MS, polling: 50 });
}

/** Lets the media of the page's WHEP sessions go through `port`. */
function mediaThrough(page, port) {
  return page.route('**/whep/*', async (route) => {
    const response = await route.fetch();
    const candidate = /^(a=candidate:\S+ \d+ udp \d+ \S+) \d+ /gim;
    const body = (await response.text()).replace(candidate, `$1 ${port} `);
    await route.fulfill({ response, body });
  });
}

test('a viewer goes down with its path, without a freeze, and comes up again by itself', async (t) => {
  const publisher = publishPattern(gateway, 'narrow', { bitrate: BITRATE });
  t.after(publisher.stop);
  const path = await narrowPath(gateway, WIDE);
  t.after(path.stop);
  await gateway.waitForLayers('narrow', 3);

  const viewer = await openPage(browser);
  t.after(() => viewer.context().close());
  await mediaThrough(viewer, path.port);
  await viewer.goto(`${gateway.url}/play/narrow?transport=webrtc`);
  await playerIn(viewer, 'playing');
  // A machine that is busy with other things looks like a narrow path, until it is not.
  await settled(viewer);
  const record = await recordPicture(viewer);
  await record.steady(1_000);

  const whole = await stats(viewer);
  const narrowedAt = Date.now();
  await path.change(NARROW);
  await waitForHeight(viewer, (height) => height < 720, DOWN_WITHIN_MS);
  t.diagnostic(`down after ${Date.now() - narrowedAt} ms`);
  await record.steady(2_000);
  const low = await stats(viewer);

  const widenedAt = Date.now();
  await path.change(WIDE);
  await waitForHeight(viewer, (height) => height === 720, UP_WITHIN_MS);
  t.diagnostic(`up after ${Date.now() - widenedAt} ms`);
  await record.steady(2_000);
  const high = await stats(viewer);

  const seen = await record.stop();
  t.diagnostic(JSON.stringify({ seen, freezes: [whole, low, high].map((one) => one.freezeCount), pli: high.pliCount }));
  const heights = seen.heights.map(({ height }) => height);
  assert.ok(heights[0] === 720 && heights[1] < 720 && heights.at(-1) === 720, heights.join());
  assert.ok(heights.length <= 5, `to and fro: ${heights.join()}`);
  assert.ok(seen.longestGapMs < LONGEST_GAP_MS, `${seen.longestGapMs} ms without a new picture`);
  // Chromium counts what is 150 ms longer than usual: the queue of the path, which the
  // lower layer's keyframe waits for, is.
  assert.ok(high.freezeCount - whole.freezeCount <= 2, `${high.freezeCount} freezes`);
  assert.ok(high.pliCount - whole.pliCount <= 2, `${high.pliCount} keyframe requests`);
  const metrics = await gateway.metrics();
  const switches = (reason) => metrics.sum('railbird_layer_switches_total', { table: 'narrow', reason });
  assert.ok(switches('down_estimate') + switches('down_loss') >= 1);
  assert.ok(switches('up') >= 1);
  assert.equal(switches('pause') + switches('manual') + switches('layer_gone'), 0);
  assert.deepEqual(viewer.problems, []);
});
