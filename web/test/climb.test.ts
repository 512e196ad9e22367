import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Climb } from '../src/climb.ts';

/** How long after `nowMs` a try is due. */
function wait(climb: Climb, nowMs: number): number {
  let waited = 0;
  while (!climb.isDue(nowMs + waited)) waited += 1_000;
  return waited;
}

test('who never stalled has nothing to try', () => {
  assert.equal(new Climb().isDue(1e9), false);
});

test('a larger layer is tried again after half a minute', () => {
  const climb = new Climb();
  climb.fell(5_000);
  assert.equal(wait(climb, 5_000), 30_000);
});

test('each try that fails doubles the wait, up to ten minutes', () => {
  const climb = new Climb();
  let now = 0;
  climb.fell(now);
  const waits = Array.from({ length: 7 }, () => {
    const waited = wait(climb, now);
    climb.climbed(now + waited);
    now += waited + 2_000;
    climb.fell(now);
    return waited / 1_000;
  });
  assert.deepEqual(waits, [30, 60, 120, 240, 480, 600, 600]);
});

test('a try that went well is followed by the next, and forgets the failures', () => {
  const climb = new Climb();
  climb.fell(0);
  climb.climbed(30_000);
  climb.fell(31_000);
  assert.equal(wait(climb, 31_000), 60_000);
  climb.climbed(91_000);
  assert.equal(wait(climb, 91_000), 60_000, 'the one after next waits as long');
  climb.climbed(151_000);
  climb.fell(400_000);
  assert.equal(wait(climb, 400_000), 30_000);
});
