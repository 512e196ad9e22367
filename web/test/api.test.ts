import assert from 'node:assert/strict';
import { test } from 'node:test';

import { bestLayer, isTableName, parseRetryAfter, readProblem, tableFromPath, type Table } from '../src/api.ts';

test('the table is the second part of the path, if it is a name the gateway accepts', () => {
  assert.equal(tableFromPath('/play/roulette-7'), 'roulette-7');
  assert.equal(tableFromPath('/publish/A_b/'), 'A_b');
  assert.equal(tableFromPath('/publish'), null);
  assert.equal(tableFromPath('/play/a%20b'), null);
  assert.equal(isTableName('x'.repeat(64)), true);
  assert.equal(isTableName('x'.repeat(65)), false);
});

test('Retry-After is read as seconds or as a date, and bounded', () => {
  const now = Date.parse('2026-01-01T00:00:00Z');
  assert.equal(parseRetryAfter('2', now), 2_000);
  assert.equal(parseRetryAfter('Thu, 01 Jan 2026 00:00:03 GMT', now), 3_000);
  assert.equal(parseRetryAfter('Thu, 01 Jan 2020 00:00:00 GMT', now), 0);
  assert.equal(parseRetryAfter('99999999', now), 60_000);
  assert.equal(parseRetryAfter('soon', now), null);
  assert.equal(parseRetryAfter('', now), null);
  assert.equal(parseRetryAfter(null, now), null);
});

test('a problem document gives its title, detail and kind', async () => {
  const body = { type: 'urn:railbird:problem:table-taken', title: 'Table taken', detail: 'Somebody is on it.' };
  const headers = { 'retry-after': '1' };
  const error = await readProblem(new Response(JSON.stringify(body), { status: 409, headers }));
  assert.equal(error.kind, 'table-taken');
  assert.equal(error.message, 'Table taken: Somebody is on it.');
  assert.equal(error.retryAfterMs, 1_000);
});

test('an answer that is no problem document still makes an error', async () => {
  for (const body of ['<html>bad gateway</html>', '', 'null', '[1]', '{"title":7}']) {
    const error = await readProblem(new Response(body, { status: 502, statusText: 'Bad Gateway' }));
    assert.equal(error.status, 502);
    assert.equal(error.message, 'Bad Gateway');
  }
});

test('the best layer is the one with most pixels', () => {
  const layers = [
    { rid: 'q', width: 320, height: 180, bitrate: 1 },
    { rid: 'f', width: 1280, height: 720, bitrate: 3 },
    { rid: 'h', width: 640, height: 360, bitrate: 2 },
  ];
  const table = { table: 't', tracks: [{ kind: 'video', codec: 'H264', layers }] } as unknown as Table;
  assert.equal(bestLayer(table, 'video')?.layer?.rid, 'f');
  assert.equal(bestLayer(table, 'audio'), null);
});
