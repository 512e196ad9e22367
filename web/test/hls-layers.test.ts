import assert from 'node:assert/strict';
import { test } from 'node:test';

import { endsSegment } from '../src/hls-layers.ts';

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
