import assert from 'node:assert/strict';
import { test } from 'node:test';

import { encodings, preferCodec, shareBitrate } from '../src/encodings.ts';

const choice = { simulcast: true, bitrate: 2_000_000, fps: 30, codec: 'H264' };

test('simulcast is q, h and f at a quarter, half and full size within the bitrate', () => {
  const layers = encodings(choice);
  assert.deepEqual(layers.map(({ rid, scaleResolutionDownBy }) => [rid, scaleResolutionDownBy]), [['q', 4], ['h', 2], ['f', 1]]);
  assert.equal(layers.reduce((sum, { maxBitrate }) => sum + (maxBitrate ?? 0), 0), 2_000_000);
});

test('without simulcast there is one encoding without a rid', () => {
  assert.deepEqual(encodings({ ...choice, simulcast: false }), [{ maxBitrate: 2_000_000, maxFramerate: 30 }]);
});

test('VP9 and AV1 are told to send plain layers', () => {
  for (const codec of ['VP9', 'AV1']) {
    for (const encoding of encodings({ ...choice, codec })) {
      assert.equal((encoding as { scalabilityMode?: string }).scalabilityMode, 'L1T1');
    }
  }
});

test('a new bitrate is shared the same way', () => {
  const moved = shareBitrate(encodings(choice), 1_000_000);
  assert.deepEqual(moved, encodings({ ...choice, bitrate: 1_000_000 }));
  assert.deepEqual(shareBitrate([{}], 500_000), [{ maxBitrate: 500_000 }]);
});

test('the preferred codec comes first and the others keep their order', () => {
  const codecs = [
    { mimeType: 'video/VP8' },
    { mimeType: 'video/rtx' },
    { mimeType: 'video/H264', sdpFmtpLine: 'packetization-mode=0;profile-level-id=42e01f' },
    { mimeType: 'video/H264', sdpFmtpLine: 'packetization-mode=1;profile-level-id=42e01f' },
    { mimeType: 'video/AV1' },
  ];
  const order = preferCodec(codecs, 'H264').map((codec) => codecs.indexOf(codec));
  assert.deepEqual(order, [3, 2, 0, 1, 4]);
});
