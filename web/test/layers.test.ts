import assert from 'node:assert/strict';
import { test } from 'node:test';

import { LAYER_RELATION, linkTarget, parseLayers } from '../src/layers.ts';

const BASE = 'https://edge.example/whep/demo';

test('the link is found by its relation, wherever it stands', () => {
  const link = `</whep/demo/1/layer>; rel="${LAYER_RELATION}"`;
  const expected = 'https://edge.example/whep/demo/1/layer';
  assert.equal(linkTarget(link, LAYER_RELATION, BASE), expected);
  const among = `<stun:stun.example>; rel="ice-server", </events>; rel="sse"; events="layers", ${link}`;
  assert.equal(linkTarget(among, LAYER_RELATION, BASE), expected);
  assert.equal(linkTarget(`<x>; rel=other, </y> ; title="a" ; rel=${LAYER_RELATION}`, LAYER_RELATION, BASE), 'https://edge.example/y');
  for (const none of [null, '', '<x>', '<x>; rel="other"', link.replace('layer"', 'layers"')]) {
    assert.equal(linkTarget(none, LAYER_RELATION, BASE), null);
  }
});

test('layers are named by height, best first', () => {
  const layers = [
    { encodingId: 'q', width: 320, height: 180, bitrate: 150_000 },
    { encodingId: 'f', width: 1280, height: 720, bitrate: 2_500_000 },
    { encodingId: 'h', width: 640, height: 360, bitrate: 600_000 },
  ];
  assert.deepEqual(parseLayers({ 0: { layers, chosen: 'h', sent: 'f' } }), {
    options: [
      { id: 'f', label: '720p' },
      { id: 'h', label: '360p' },
      { id: 'q', label: '180p' },
    ],
    chosen: 'h',
    sent: 'f',
  });
});

test('layers of one size are told apart by their bitrate, those of none by their name', () => {
  const alike = [
    { encodingId: 'a', width: 640, height: 360, bitrate: 300_000 },
    { encodingId: 'b', width: 640, height: 360, bitrate: 900_000 },
    { encodingId: 'c' },
  ];
  const options = parseLayers({ 1: { layers: alike } })?.options.map(({ label }) => label);
  assert.deepEqual(options, ['360p · 900 kbit/s', '360p · 300 kbit/s', 'c']);
});

test('what is no list of layers is none', () => {
  for (const body of [null, 7, [], {}, { 0: null }, { 0: { layers: 'x' } }]) {
    assert.equal(parseLayers(body), null);
  }
  assert.deepEqual(parseLayers({ 0: { layers: [1, null, { encodingId: 2 }], chosen: 3 } }), {
    options: [],
    chosen: null,
    sent: null,
  });
});
