import assert from 'node:assert/strict';
import { test } from 'node:test';

import { CELLS, cellLuma, decodeCells, delaySince } from '../src/strip.ts';

/** Draws a value the way the synthetic dealer does: written from the format, not from the decoder. */
function cells(value: number): number[] {
  let checksum = 0;
  for (let shift = 0; shift < 32; shift += 4) checksum ^= (value >>> shift) & 0xf;
  const bits = (BigInt(value) << 4n) | BigInt(checksum);
  const data = Array.from({ length: 36 }, (_, index) => ((bits >> BigInt(35 - index)) & 1n ? 235 : 16));
  return [16, 235, ...data, 235, 16];
}

test('every strip that is drawn is read back', () => {
  for (const value of [0, 1, 0x8000_0000, 0xffff_ffff, 0x1234_5678, Date.now() % 2 ** 32]) {
    assert.equal(decodeCells(cells(value)), value);
  }
});

test('one wrong cell anywhere is noticed', () => {
  const good = cells(0xdead_beef);
  for (let cell = 0; cell < CELLS; cell++) {
    const bad = good.with(cell, 251 - (good[cell] ?? 0));
    assert.equal(decodeCells(bad), null, `cell ${cell}`);
  }
});

test('pictures without a strip are not read', () => {
  assert.equal(decodeCells(Array(CELLS).fill(16)), null);
  assert.equal(decodeCells(Array(CELLS).fill(235)), null);
  assert.equal(decodeCells([]), null);
});

test('delays survive the wrap of the 32-bit clock, and may be negative', () => {
  const wrap = 5 * 2 ** 32;
  assert.equal(delaySince(2 ** 32 - 100, wrap + 50), 150);
  assert.equal(delaySince(50, wrap - 100), -150);
  assert.equal(delaySince(1_000, wrap + 1_233.4), 233);
});

test('the brightness of a cell comes from its middle', () => {
  const pixels = new Uint8ClampedArray(320 * 8 * 4);
  // Cell 3 is white but for its border, where scaling mixes in the neighbours.
  for (let y = 2; y < 6; y++) pixels.fill(255, (y * 320 + 26) * 4, (y * 320 + 30) * 4);
  const luma = cellLuma(pixels);
  assert.ok(Math.abs((luma[3] ?? 0) - 255) < 0.5);
  assert.equal(luma[2], 0);
  assert.equal(luma[4], 0);
});
