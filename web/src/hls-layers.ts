// The layers of a playback by hls.js: the variants of the multivariant playlist.
//
// hls.js's own choice, by its estimate of the bandwidth, is not used: it changes layers
// within a segment, where hls.js 1.7 may stop (see `#wake` in hls-player.ts), and takes
// what small parts need for what the path carries. The first layer is the best one of a
// common path; whoever stalls on it is given the next smaller one and stays there.

import type Hls from 'hls.js';

import { optionsOf, type LayerChoice, type LayerState } from './layers.ts';

/** Bits per second that a path is thought to carry before anything is known of it. */
const COMMON_PATH_BPS = 4_000_000;

export class HlsLayers implements LayerChoice {
  readonly #hls: Hls;
  /** What the viewer chose. */
  #chosen: string | null = null;

  constructor(hls: Hls) {
    this.#hls = hls;
  }

  /** The playlist has come: begins with the best layer of a common path. hls.js lists the smallest first. */
  begin(): void {
    const { levels } = this.#hls;
    this.#hls.loadLevel = Math.max(0, levels.findLastIndex(({ bitrate }) => bitrate <= COMMON_PATH_BPS));
  }

  /** The picture stood still because nothing was in store. */
  stalled(): void {
    if (this.#chosen === null && this.#hls.loadLevel > 0) this.#hls.loadLevel -= 1;
  }

  async read(): Promise<LayerState> {
    const { levels, currentLevel } = this.#hls;
    const listed = levels.map((level) => ({ ...level, encodingId: nameOf(level.uri) }));
    const sent = levels[currentLevel];
    return { options: optionsOf(listed), chosen: this.#chosen, sent: sent ? nameOf(sent.uri) : null };
  }

  async choose(id: string | null): Promise<LayerState> {
    this.#chosen = id;
    const level = this.#hls.levels.findIndex(({ uri }) => nameOf(uri) === id);
    // From the next fragment on: what is buffered plays out.
    if (level !== -1) this.#hls.loadLevel = level;
    else if (id === null) this.begin();
    return this.read();
  }
}

/** The rendition's name: the same in every session, and after a restart of the gateway. */
function nameOf(uri: string): string {
  return new URL(uri, location.href).pathname.split('/').at(-2) ?? uri;
}
