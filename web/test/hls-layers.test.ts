import assert from 'node:assert/strict';
import { test } from 'node:test';

import { endsSegment, HlsLayers } from '../src/hls-layers.ts';

const part = (sn: number, index: number) => ({ fragment: { sn }, index });
/** What hls.js knows of a playlist whose newest complete segment is 7. */
const details = (...partList: ReturnType<typeof part>[]) => ({ endSN: 7, partList }) as never;

test('a whole segment ends with itself', () => {
  assert.equal(endsSegment(null, { sn: 7 }, null), true);
});

test('a complete segment ends with its last part, and with no other', () => {
  const listed = details(part(7, 0), part(7, 1), part(8, 0));
  assert.equal(endsSegment(listed, { sn: 7 }, { index: 0 }), false);
  assert.equal(endsSegment(listed, { sn: 7 }, { index: 1 }), true);
});

test('a segment in progress has not ended with the newest part that is listed', () => {
  assert.equal(endsSegment(details(part(8, 0)), { sn: 8 }, { index: 0 }), false);
  assert.equal(endsSegment(null, { sn: 8 }, { index: 0 }), false);
});

test('a segment whose parts are no longer listed has ended', () => {
  assert.equal(endsSegment(details(part(8, 0)), { sn: 3 }, { index: 1 }), true);
});

/** hls.js with three levels, of which the last is too much for a common path. */
const hls = () => ({ levels: [{ bitrate: 1e6 }, { bitrate: 3e6 }, { bitrate: 9e6 }], loadLevel: -1, latestLevelDetails: null });
const segmentEnds = (layers: HlsLayers, nowMs: number) => layers.buffered({ sn: 1 } as never, null, nowMs);

test('who stalls is given the next smaller layer, and later tries the larger one again', () => {
  const player = hls();
  const layers = new HlsLayers(player as never);
  layers.begin();
  assert.equal(player.loadLevel, 1);
  layers.stalled(10_000);
  assert.equal(player.loadLevel, 0);
  segmentEnds(layers, 20_000);
  assert.equal(player.loadLevel, 0, 'not at once');
  segmentEnds(layers, 60_000);
  assert.equal(player.loadLevel, 1);
  segmentEnds(layers, 600_000);
  assert.equal(player.loadLevel, 1, 'not beyond the layer of a common path');
});

test('who chose a layer keeps it', async () => {
  const player = { ...hls(), levels: ['a', 'b', 'c'].map((name) => ({ bitrate: 1, uri: `http://x/${name}/index.m3u8` })) };
  Object.assign(globalThis, { location: { href: 'http://x/' } });
  const layers = new HlsLayers(player as never);
  layers.begin();
  layers.stalled(0);
  await layers.choose('a');
  segmentEnds(layers, 1_000);
  assert.equal(player.loadLevel, 0);
  layers.stalled(2_000);
  segmentEnds(layers, 900_000);
  assert.equal(player.loadLevel, 0);
});
