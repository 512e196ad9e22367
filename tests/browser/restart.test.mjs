// A gateway that goes away and comes back, as in a rollout or a crash.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { launchChromium, openPage } from './lib/chromium.mjs';
import { startGateway } from './lib/gateway.mjs';
import { playFrames, playerIn } from './lib/pages.mjs';

for (const signal of ['SIGTERM', 'SIGKILL']) {
  test(`the player comes back by itself after the gateway restarts (${signal})`, async (t) => {
    let gateway = await startGateway({ command: 'demo' });
    t.after(() => gateway.stop());
    const browser = await launchChromium();
    t.after(() => browser.close());

    const page = await openPage(browser);
    await page.goto(`${gateway.url}/play/demo`);
    await playerIn(page, 'playing');
    await gateway.stop(signal);
    await playerIn(page, 'reconnecting');
    gateway = await startGateway({ command: 'demo', ports: gateway.ports });
    await playerIn(page, 'playing', 20_000);
    const { after: last } = await playFrames(page, 60, 10_000);
    assert.equal(last.transport, 'webrtc', 'a restart is no reason to leave WebRTC');
    assert.deepEqual(page.problems, []);
  });
}
