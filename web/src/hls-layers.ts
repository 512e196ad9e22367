// The layers of a playback by hls.js: the variants of the multivariant playlist.
//
// Layers change between two segments. Within one, hls.js goes back to its beginning, and
// what lies from there to the edge leaves the buffer until it has come again: a stall for
// whoever plays close to the edge. hls.js's own choice by an estimate of the bandwidth is
// not used: it heeds no segments, and takes what small parts need for what the path
// carries. The first layer is the best one of a common path; whoever stalls on it is
// given the next smaller one and stays there.

import type Hls from 'hls.js';
import type { LevelDetails, MediaFragment, Part } from 'hls.js';

import { Climb } from './climb.ts';
import { optionsOf, type LayerChoice, type LayerState } from './layers.ts';

/** Bits per second that a path is thought to carry before anything is known of it. */
const COMMON_PATH_BPS = 4_000_000;

export class HlsLayers implements LayerChoice {
  readonly #hls: Hls;
  /** What the viewer chose. */
  #chosen: string | null = null;
  /** The level to change to when a segment ends. */
  #next: number | null = null;
  #climb = new Climb();

  constructor(hls: Hls) {
    this.#hls = hls;
  }

  /** The playlist has come: begins with the best layer of a common path. hls.js lists the smallest first. */
  begin(): void {
    this.#hls.loadLevel = this.#ofCommonPath();
  }

  /** Media is in the buffer: here layers change, when a segment ends with it. */
  buffered(frag: MediaFragment, part: Part | null, nowMs: number): void {
    if (!endsSegment(this.#hls.latestLevelDetails, frag, part)) return;
    const level = this.#next ?? this.#larger(nowMs);
    this.#next = null;
    if (level !== null) this.#hls.loadLevel = level;
  }

  /** The picture stood still because nothing was in store. */
  stalled(nowMs: number): void {
    if (this.#chosen !== null) return;
    this.#next = null;
    this.#climb.fell(nowMs);
    if (this.#hls.loadLevel > 0) this.#hls.loadLevel -= 1;
  }

  async read(): Promise<LayerState> {
    const { levels, currentLevel } = this.#hls;
    const listed = levels.map((level) => ({ ...level, encodingId: nameOf(level.uri) }));
    const sent = levels[currentLevel];
    return { options: optionsOf(listed), chosen: this.#chosen, sent: sent ? nameOf(sent.uri) : null };
  }

  async choose(id: string | null): Promise<LayerState> {
    this.#chosen = id;
    this.#climb = new Climb();
    const { levels, loadLevel } = this.#hls;
    const level = id === null ? this.#ofCommonPath() : levels.findIndex(({ uri }) => nameOf(uri) === id);
    this.#next = level === -1 || level === loadLevel ? null : level;
    return this.read();
  }

  /** The level to try after a time without a stall. */
  #larger(nowMs: number): number | null {
    const { loadLevel } = this.#hls;
    if (this.#chosen !== null || loadLevel >= this.#ofCommonPath() || !this.#climb.isDue(nowMs)) return null;
    this.#climb.climbed(nowMs);
    return loadLevel + 1;
  }

  #ofCommonPath(): number {
    const { levels } = this.#hls;
    return Math.max(0, levels.findLastIndex(({ bitrate }) => bitrate <= COMMON_PATH_BPS));
  }
}

/** Whether a segment ends with what was buffered: a whole one, or its last part. */
export function endsSegment(
  details: Pick<LevelDetails, 'endSN' | 'partList'> | null,
  frag: Pick<MediaFragment, 'sn'>,
  part: Pick<Part, 'index'> | null,
): boolean {
  if (part === null) return true;
  // While it is in progress more parts may follow, listed or not.
  if (!details || frag.sn > details.endSN) return false;
  const later = details.partList?.some(({ fragment, index }) => fragment.sn === frag.sn && index > part.index);
  return later !== true;
}

/** The rendition's name: the same in every session, and after a restart of the gateway. */
function nameOf(uri: string): string {
  return new URL(uri, location.href).pathname.split('/').at(-2) ?? uri;
}
