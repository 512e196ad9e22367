import assert from 'node:assert/strict';
import { test } from 'node:test';

import { bitrate, duration, frameRate, milliseconds, resolution } from '../src/format.ts';
import { RateMeter } from '../src/rate-meter.ts';

test('numbers are shown with the unit that fits', () => {
  assert.equal(bitrate(1_804_000), '1.80 Mbit/s');
  assert.equal(bitrate(999_600), '1.00 Mbit/s');
  assert.equal(bitrate(64_000), '64 kbit/s');
  assert.equal(milliseconds(183.4), '183 ms');
  assert.equal(milliseconds(999.7), '1.00 s');
  assert.equal(milliseconds(-12), '-12 ms');
  assert.equal(frameRate(29.97), '30 fps');
  assert.equal(frameRate(12.5), '12.5 fps');
  assert.equal(resolution(1280, 720), '1280×720');
});

test('what is not known is a dash', () => {
  for (const text of [bitrate(null), milliseconds(NaN), frameRate(undefined), resolution(0, 0)]) assert.equal(text, '–');
});

test('durations have at most two units', () => {
  assert.equal(duration(-5), '0 s');
  assert.equal(duration(59_999), '59 s');
  assert.equal(duration(12 * 60_000), '12 min');
  assert.equal(duration(3 * 3_600_000 + 5 * 60_000), '3 h 05 min');
  assert.equal(duration(52 * 3_600_000), '2 d 4 h');
});

test('bursts are averaged over the window', () => {
  const meter = new RateMeter();
  assert.equal(meter.perSecond(0), null);
  for (let at = 0; at <= 10_000; at += 500) meter.add(1_000, at);
  assert.equal(meter.perSecond(10_000), 2_000);
  assert.equal(meter.perSecond(14_000), 0, 'nothing for a whole window');
});
