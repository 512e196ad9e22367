// Tables published from the browser, watched from another one.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launchChromium, openPage } from './lib/chromium.mjs';
import { startGateway } from './lib/gateway.mjs';
import { playFrames, playerIn, publish } from './lib/pages.mjs';

let gateway;
let browser;

before(async () => {
  [gateway, browser] = await Promise.all([startGateway(), launchChromium()]);
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
});

/** Two pages that share nothing, closed with the test. */
async function twoPages(t) {
  const pages = await Promise.all([openPage(browser), openPage(browser)]);
  t.after(() => Promise.all(pages.map((page) => page.context().close())));
  return pages;
}

test('a published table is watched over WHEP from a page of its own', async (t) => {
  const [dealer, viewer] = await twoPages(t);
  await publish(dealer, gateway.url, 'studio');
  await viewer.goto(`${gateway.url}/play/studio?transport=webrtc`);
  await playerIn(viewer, 'playing');
  const { after: last } = await playFrames(viewer, 90, 20_000);
  assert.equal(last.transport, 'webrtc');
  assert.equal(last.codec, 'H264');
  assert.deepEqual([...dealer.problems, ...viewer.problems], []);
});

test('a table published in three layers is watched', async (t) => {
  const [dealer, viewer] = await twoPages(t);
  await publish(dealer, gateway.url, 'layers', { simulcast: true });
  await dealer.waitForFunction(() => document.querySelectorAll('#layers tr').length === 3, null, { timeout: 10_000 });
  await viewer.goto(`${gateway.url}/play/layers?transport=webrtc`);
  await playerIn(viewer, 'playing');
  await playFrames(viewer, 60, 20_000);
  assert.deepEqual([...dealer.problems, ...viewer.problems], []);
});

test('a table that is not live is waited for, and starts by itself', async (t) => {
  const [dealer, viewer] = await twoPages(t);
  await viewer.goto(`${gateway.url}/play/later`);
  await playerIn(viewer, 'waiting');
  assert.match(await viewer.textContent('#headline'), /not live yet – waiting/);
  await publish(dealer, gateway.url, 'later');
  await playerIn(viewer, 'playing');
  await playFrames(viewer, 30, 10_000);
});

test('a reloaded publisher takes its own table over', async (t) => {
  const [dealer, viewer] = await twoPages(t);
  await publish(dealer, gateway.url, 'again');
  await publish(dealer, gateway.url, 'again');
  await viewer.goto(`${gateway.url}/play/again`);
  await playerIn(viewer, 'playing');
});

test('somebody else cannot take a live table, and is told so', async (t) => {
  const [dealer, rival] = await twoPages(t);
  await publish(dealer, gateway.url, 'mine');
  await rival.goto(`${gateway.url}/publish/mine`);
  const answer = rival.waitForResponse((response) => response.url().includes('/whip/mine'));
  await rival.click('#go');
  const problem = await (await answer).json();
  await rival.waitForFunction((title) => document.querySelector('#error')?.textContent.includes(title), problem.title);
  assert.equal(await dealer.getAttribute('#stage', 'data-state'), 'live');
});

test('the lobby shows a table while it is live, and no longer', async (t) => {
  const [dealer, lobby] = await twoPages(t);
  await lobby.goto(gateway.url);
  const card = lobby.locator('.card', { hasText: 'shortly' });
  await card.waitFor({ state: 'detached' });
  await publish(dealer, gateway.url, 'shortly');
  await card.waitFor({ timeout: 10_000 });
  assert.match(await card.textContent(), /H264/);
  await dealer.click('#go');
  await card.waitFor({ state: 'detached', timeout: 15_000 });
  assert.deepEqual(lobby.problems, []);
});
