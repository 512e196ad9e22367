// Shaka Player on a page of its own, as a second opinion about the gateway's LL-HLS.

import { createRequire } from 'node:module';

import { openPage } from './chromium.mjs';

const SCRIPT = createRequire(import.meta.url).resolve('shaka-player/dist/shaka-player.compiled.js');

/** Opens `manifest` in a new page and resolves when the picture moves. */
export async function openShaka(browser, gateway, manifest) {
  const page = await openPage(browser);
  const body = '<!doctype html><title>Shaka Player</title><video muted playsinline></video>';
  await page.route('**/shaka', (route) => route.fulfill({ contentType: 'text/html', body }));
  await page.goto(`${gateway.url}/shaka`);
  await page.addScriptTag({ path: SCRIPT });
  await page.evaluate(async (url) => {
    const video = document.querySelector('video');
    window.shaka.polyfill.installAll();
    const player = (window.player = new window.shaka.Player());
    window.errors = [];
    // From the others it recovers by itself; what that costs shows as a stall or a hole.
    const CRITICAL = window.shaka.util.Error.Severity.CRITICAL;
    player.addEventListener('error', ({ detail }) => {
      if (detail.severity === CRITICAL) window.errors.push(`${detail.code}: ${detail.data}`);
    });
    await player.attach(video);
    player.configure({ streaming: { lowLatencyMode: true } });
    await player.load(url);
    await video.play();
  }, manifest);
  await page.waitForFunction(() => document.querySelector('video').currentTime > 0 && window.player.getStats().decodedFrames > 15);
  return page;
}

/** One reading of the player. */
export function shakaStats(page) {
  return page.evaluate(() => {
    const { stallsDetected, gapsJumped, decodedFrames, droppedFrames, liveLatency, width, height } = window.player.getStats();
    const { currentTime } = document.querySelector('video');
    return { stallsDetected, gapsJumped, decodedFrames, droppedFrames, liveLatency, width, height, currentTime, errors: window.errors };
  });
}

/** Plays the variant of this height, without emptying the buffer. */
export function shakaChoose(page, height) {
  return page.evaluate((wanted) => {
    window.player.configure({ abr: { enabled: false } });
    window.player.selectVariantTrack(window.player.getVariantTracks().find((track) => track.height === wanted));
  }, height);
}
