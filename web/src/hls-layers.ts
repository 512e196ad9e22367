// The layers of a playback by hls.js: the variants of the multivariant playlist.

import type Hls from 'hls.js';

import { optionsOf, type LayerChoice, type LayerState } from './layers.ts';

/** hls.js's word for leaving the choice to its own estimate. */
const AUTO = -1;

export class HlsLayers implements LayerChoice {
  readonly #hls: Hls;

  constructor(hls: Hls) {
    this.#hls = hls;
  }

  async read(): Promise<LayerState> {
    const { levels, currentLevel, autoLevelEnabled, manualLevel } = this.#hls;
    const idOf = (index: number) => (levels[index] ? nameOf(levels[index].uri) : null);
    const listed = levels.map((level) => ({ ...level, encodingId: nameOf(level.uri) }));
    return {
      options: optionsOf(listed),
      chosen: autoLevelEnabled ? null : idOf(manualLevel),
      sent: idOf(currentLevel),
    };
  }

  async choose(id: string | null): Promise<LayerState> {
    const level = this.#hls.levels.findIndex(({ uri }) => nameOf(uri) === id);
    // From the next fragment on: what is buffered plays out, and the picture does not stop.
    this.#hls.loadLevel = level === -1 ? AUTO : level;
    return this.read();
  }
}

/** The rendition's name: the same in every session, and after a restart of the gateway. */
function nameOf(uri: string): string {
  return new URL(uri, location.href).pathname.split('/').at(-2) ?? uri;
}
