import assert from 'node:assert/strict';
import { test } from 'node:test';

import { rateTowards } from '../src/hold-back.ts';

test('who is where the gateway wants plays at the speed of life', () => {
  for (const latency of [0.57, 0.6, 0.63]) assert.equal(rateTowards(latency, 0.6, 0.4), 1);
  // Before the first playlist hls.js does not know.
  assert.equal(rateTowards(Number.NaN, 0.6, 0.4), 1);
});

test('who is behind hurries, with something in store only', () => {
  assert.equal(rateTowards(0.9, 0.6, 0.4), 1.1);
  assert.equal(rateTowards(0.9, 0.6, 0.1), 1);
  assert.equal(rateTowards(8, 1.5, 5), 1.5);
});

test('who is too close falls back, whatever is in store', () => {
  assert.equal(rateTowards(0.7, 1.5, 0.1), 0.95);
  assert.equal(rateTowards(0.7, 1.5, 0.6), 0.95);
});

test('a viewer comes to the target from both sides and stays there', () => {
  for (const begun of [0.2, 4.9]) {
    let latency = begun;
    for (let second = 0; second < 40; second += 0.25) latency -= (rateTowards(latency, 1.5, 0.5) - 1) * 0.25;
    assert.ok(Math.abs(latency - 1.5) < 0.06, `${begun} to ${latency}`);
  }
});
