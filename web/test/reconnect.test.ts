import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Backoff, Wakeup } from '../src/reconnect.ts';

test('waits double from 0.3 s and stay below 5 s', () => {
  const shortest = new Backoff(() => 0);
  assert.deepEqual(
    Array.from({ length: 6 }, () => shortest.next()),
    [300, 600, 1_200, 2_400, 2_500, 2_500],
  );
  const longest = new Backoff(() => 0.999_999);
  for (let attempt = 0; attempt < 100; attempt++) assert.ok(longest.next() < 5_000.1);
});

test('a success starts from the shortest wait again', () => {
  const backoff = new Backoff(() => 0);
  backoff.next();
  backoff.next();
  backoff.reset();
  assert.equal(backoff.next(), 300);
});

test('Retry-After is a lower bound, with jitter on top', () => {
  assert.equal(new Backoff(() => 0).next(2_000), 2_000);
  assert.equal(new Backoff(() => 0.5).next(2_000), 2_200);
  assert.equal(new Backoff(() => 0).next(0), 300);
});

test('a wake-up ends a wait early', async () => {
  const wakeup = new Wakeup();
  const waited = wakeup.wait(3_600_000, new AbortController().signal);
  wakeup.wake();
  await waited;
});

test('an abort ends a wait with its reason', async () => {
  const run = new AbortController();
  const waited = new Wakeup().wait(3_600_000, run.signal);
  run.abort(new Error('closed'));
  await assert.rejects(waited, /closed/);
  await assert.rejects(new Wakeup().wait(3_600_000, run.signal), /closed/);
});
