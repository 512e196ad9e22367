// The demo table on both transports: start-up time, smoothness, latency.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launchChromium, openPage } from './lib/chromium.mjs';
import { startGateway } from './lib/gateway.mjs';
import { glassToGlass, median, playFrames, playerIn } from './lib/pages.mjs';

/** Ten seconds of the demo table. */
const FRAMES = 300;

let gateway;
let browser;

before(async () => {
  [gateway, browser] = await Promise.all([startGateway({ command: 'demo' }), launchChromium()]);
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
});

/** Page loads that may be slow for the machine's reasons: the best of them counts. */
const LOADS = 3;

async function watch(t, transport, limits) {
  const page = await openPage(browser);
  t.after(() => page.context().close());
  let firstFrameMs = Infinity;
  for (let load = 0; load < LOADS && firstFrameMs >= limits.firstFrameMs; load += 1) {
    await page.goto(`${gateway.url}/play/demo?transport=${transport}`);
    await playerIn(page, 'playing');
    firstFrameMs = (await page.evaluate(() => window.railbird.stats())).firstFrameMs;
  }
  const { before: first, after: last } = await playFrames(page, FRAMES, 30_000);
  const latencies = await glassToGlass(page, 30);

  t.diagnostic(`first frame ${Math.round(firstFrameMs)} ms after the page started to load`);
  t.diagnostic(`glass to glass: median ${median(latencies)} ms, worst ${latencies.at(-1)} ms of ${latencies.length} frames`);
  assert.equal(last.transport, transport);
  assert.deepEqual([last.width, last.height], [1280, 720]);
  assert.equal(last.freezeCount - first.freezeCount, 0, 'the picture stood still');
  assert.ok(firstFrameMs < limits.firstFrameMs, `first frame after ${firstFrameMs} ms`);
  assert.ok(latencies.length >= 15, `only ${latencies.length} of 30 frames had a readable capture strip`);
  assert.ok(latencies[0] > 0, `a frame was seen ${-latencies[0]} ms before it was captured`);
  assert.ok(median(latencies) < limits.latencyMs, `median latency ${median(latencies)} ms`);
  assert.deepEqual(page.problems, []);
}

test('the demo table plays over WHEP at once, without a freeze, in under a second', (t) =>
  watch(t, 'webrtc', { firstFrameMs: 1_500, latencyMs: 1_000 }));

test('the demo table plays over LL-HLS without a stall, under four seconds late', (t) =>
  watch(t, 'llhls', { firstFrameMs: 3_000, latencyMs: 4_000 }));

/** The sum of the series of the demo table over LL-HLS. */
async function counted(name) {
  const text = await (await fetch(`${gateway.admin}/metrics`)).text();
  const series = text.split('\n').filter((line) => line.startsWith(`${name}{table="demo",transport="llhls"}`));
  return series.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

test('the gateway counts hls.js as a viewer that does not stall, until the page is closed', async (t) => {
  const page = await openPage(browser);
  t.after(() => page.context().close());
  await page.goto(`${gateway.url}/play/demo?transport=llhls`);
  await playerIn(page, 'playing');
  await playFrames(page, FRAMES, 30_000);
  assert.ok((await counted('railbird_viewers')) >= 1);
  assert.ok((await counted('railbird_egress_bytes_total')) > 1_000_000);
  await page.close();
  // Three target durations, a part, and the sweep of each second.
  const deadline = Date.now() + 15_000;
  while ((await counted('railbird_viewers')) > 0) {
    assert.ok(Date.now() < deadline, 'a viewer stays');
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  assert.equal(await counted('railbird_viewer_stalls_total'), 0);
});

test('the viewer changes the transport while watching', async (t) => {
  const page = await openPage(browser);
  t.after(() => page.context().close());
  await page.goto(`${gateway.url}/play/demo`);
  for (const [name, transport] of [['LL-HLS', 'llhls'], ['WebRTC', 'webrtc']]) {
    await playerIn(page, 'playing');
    await page.getByLabel(name, { exact: true }).check();
    await page.waitForFunction((wanted) => window.railbird.transport === wanted, transport);
    await playerIn(page, 'playing');
    await playFrames(page, 30, 10_000);
  }
  assert.deepEqual(page.problems, []);
});
