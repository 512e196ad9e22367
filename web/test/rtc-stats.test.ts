import assert from 'node:assert/strict';
import { test } from 'node:test';

import { delayFromSenderClock, readPublisher, readViewer, type StatsEntry } from '../src/rtc-stats.ts';

const NTP_OFFSET_MS = 2_208_988_800_000;

function report(...entries: (Partial<StatsEntry> & { id: string })[]) {
  return new Map(entries.map((entry) => [entry.id, { timestamp: 0, type: '', ...entry } as StatsEntry]));
}

function viewer(timestamp: number, bytes: number, frames: number) {
  return report(
    { id: 'V', type: 'inbound-rtp', kind: 'video', timestamp, codecId: 'C', bytesReceived: bytes, framesDecoded: frames,
      jitterBufferDelay: frames * 0.04, jitterBufferEmittedCount: frames, packetsLost: 2, nackCount: 1, pliCount: 0,
      frameWidth: 1280, frameHeight: 720, freezeCount: 0 },
    { id: 'A', type: 'inbound-rtp', kind: 'audio', timestamp, bytesReceived: 1_000, packetsLost: 1 },
    { id: 'C', type: 'codec', mimeType: 'video/H264' },
    { id: 'P1', type: 'candidate-pair', state: 'succeeded', nominated: false, currentRoundTripTime: 9 },
    { id: 'P2', type: 'candidate-pair', state: 'succeeded', nominated: true, currentRoundTripTime: 0.021 },
  );
}

test('rates of a viewer are the difference of two reports', () => {
  const first = readViewer(viewer(1_000, 100_000, 100), null, 0);
  assert.equal(first.stats.bitrate, null);
  const { stats } = readViewer(viewer(3_000, 600_000, 160), first.counters, 0);
  assert.equal(stats.bitrate, 2_000_000);
  assert.equal(stats.fps, 30);
  assert.ok(Math.abs((stats.jitterBufferMs ?? 0) - 40) < 1e-6);
});

test('codec, pair in use and losses of both tracks are found', () => {
  const { stats } = readViewer(viewer(1_000, 1, 1), null, 0);
  assert.equal(stats.codec, 'H264');
  assert.equal(stats.rttMs, 21);
  assert.equal(stats.packetsLost, 3);
  assert.deepEqual([stats.width, stats.height], [1280, 720]);
});

test('an empty report gives no numbers and no error', () => {
  const { stats } = readViewer(report(), null, 0);
  assert.equal(stats.codec, null);
  assert.equal(stats.fps, null);
  assert.equal(stats.rttMs, null);
  assert.equal(readPublisher(report(), null).stats.bitrate, null);
});

test('the sender clock may count from 1900 or from 1970', () => {
  const now = Date.parse('2026-06-01T12:00:00Z');
  assert.equal(delayFromSenderClock(now - 150, now), 150);
  assert.equal(delayFromSenderClock(now - 150 + NTP_OFFSET_MS, now), 150);
  assert.equal(delayFromSenderClock(null, now), null);
  assert.equal(delayFromSenderClock(12_345, now), null, 'not a clock at all');
});

test('layers of a publisher are listed from the largest, each with its own bitrate', () => {
  const at = (timestamp: number, bytes: number) =>
    report(
      { id: 'q', type: 'outbound-rtp', kind: 'video', rid: 'q', timestamp, bytesSent: bytes, frameWidth: 320, frameHeight: 180,
        qualityLimitationReason: 'none' },
      { id: 'f', type: 'outbound-rtp', kind: 'video', rid: 'f', timestamp, bytesSent: bytes * 4, frameWidth: 1280, frameHeight: 720,
        qualityLimitationReason: 'bandwidth' },
      { id: 'a', type: 'outbound-rtp', kind: 'audio', timestamp, bytesSent: 0 },
    );
  const first = readPublisher(at(0, 0), null);
  const { stats } = readPublisher(at(1_000, 10_000), first.sent);
  assert.deepEqual(stats.layers.map(({ rid, bitrate }) => [rid, bitrate]), [['f', 320_000], ['q', 80_000]]);
  assert.equal(stats.bitrate, 400_000);
  assert.equal(stats.limitation, 'bandwidth');
});
