// LL-HLS in every profile: hls.js on the player page and Shaka Player beside it play a
// table in three layers for a minute, both change layers, and neither ever stalls.
//
// SECONDS    how long they play (default: 60)
// PROFILES   which (default: balanced,close,far)

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launchChromium, openPage } from './lib/chromium.mjs';
import { startDealer } from './lib/dealer.mjs';
import { startGateway } from './lib/gateway.mjs';
import { glassToGlass, median, playFrames, playerIn, stats } from './lib/pages.mjs';
import { openShaka, shakaChoose, shakaStats } from './lib/shaka.mjs';

const SECONDS = Number(process.env.SECONDS ?? 60);
const FPS = 30;
const [HIGH, LOW] = [360, 180];
const TABLE = ['--width', '640', '--bitrate', '800k', '--fps', String(FPS), '--simulcast'];

/** Capture to screen, read from the picture, on loopback, milliseconds. */
const LATENCY_MS = { balanced: 1_800, close: 800, far: 3_500 };

let browser;

before(async () => {
  browser = await launchChromium();
});

after(() => browser?.close());

for (const profile of (process.env.PROFILES ?? 'balanced,close,far').split(',')) {
  const latencyMs = LATENCY_MS[profile];
  test(`a minute in profile ${profile}, by two players, with layers that change`, async (t) => {
    const gateway = await startGateway({ config: `[hls]\nprofile = "${profile}"\n` });
    t.after(() => gateway.stop());
    const dealer = await startDealer(gateway, 'minute', TABLE);
    t.after(() => dealer.stop());

    await listed(gateway, 'minute', 10);

    const page = await openPage(browser);
    t.after(() => page.context().close());
    await page.goto(`${gateway.url}/play/minute?transport=llhls`);
    await playerIn(page, 'playing');
    const shaka = await openShaka(browser, gateway, `${gateway.url}/hls/minute/index.m3u8`);
    t.after(() => shaka.context().close());

    // Its first seek makes Shaka Player set its buffer's offset again, which may cost the part after: not a change of layers.
    await shaka.waitForFunction(() => window.player.getStats().decodedFrames > 120);

    const [began, shakaBegan] = [await stats(page), await shakaStats(shaka)];
    const latencies = [];
    for (const height of [LOW, HIGH, LOW]) {
      await Promise.all([shakaChoose(shaka, height), choose(page, height)]);
      await playFrames(page, (SECONDS * FPS) / 3, SECONDS * 1_000);
      latencies.push(...(await glassToGlass(page, 20)));
      assert.equal((await shakaStats(shaka)).height, height, 'the layer that Shaka Player shows');
      assert.equal((await stats(page)).height, height, 'the layer that hls.js shows');
    }
    const [ended, shakaEnded] = [await stats(page), await shakaStats(shaka)];

    const middle = median(latencies.sort((a, b) => a - b));
    t.diagnostic(`hls.js: glass to glass ${middle} ms, median of ${latencies.length}; by the clock ${Math.round(ended.latencyMs)} ms`);
    t.diagnostic(`Shaka Player: ${shakaEnded.liveLatency.toFixed(2)} s behind by its own reckoning`);
    assert.equal(ended.freezeCount - began.freezeCount, 0, 'stalls of hls.js');
    assert.equal(shakaEnded.stallsDetected - shakaBegan.stallsDetected, 0, 'stalls of Shaka Player');
    assert.equal(shakaEnded.gapsJumped - shakaBegan.gapsJumped, 0, 'holes in the buffer of Shaka Player');
    assert.deepEqual(shakaEnded.errors, [], 'errors of Shaka Player');
    const played = shakaEnded.currentTime - shakaBegan.currentTime;
    assert.ok(played > SECONDS * 0.95, `Shaka Player played ${played} s`);
    assert.ok(latencies.length >= 30, `only ${latencies.length} of 60 frames had a readable capture strip`);
    assert.ok(middle <= latencyMs, `median latency ${middle} ms`);
    assert.deepEqual([...page.problems, ...shaka.problems], []);
  });
}

/** Waits until playlists list so many seconds: at a table that has just begun, players are closer than they shall be. */
async function listed(gateway, table, seconds) {
  const playlist = `${gateway.url}/hls/${table}/video0-0/index.m3u8`;
  for (let length = 0; length < seconds; ) {
    const text = await (await fetch(playlist)).text();
    length = [...text.matchAll(/#EXTINF:([\d.]+)/g)].reduce((sum, [, duration]) => sum + Number(duration), 0);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

/** Chooses a layer in the player's menu. */
async function choose(page, height) {
  await page.waitForSelector('#quality', { state: 'visible', timeout: 15_000 });
  await page.focus('#quality');
  const label = `${height}p`;
  await page.waitForFunction(
    (wanted) => [...document.querySelectorAll('#quality option')].some((option) => option.label === wanted),
    label,
    { timeout: 15_000 },
  );
  await page.selectOption('#quality', { label });
}
