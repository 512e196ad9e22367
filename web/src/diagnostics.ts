// `window.railbird`: the public diagnostics hook of the player page. Support can
// read it in a console, monitors and tests can poll it. Its shape is a promise.

import type { PlaybackStats, Transport } from './playback.ts';
import type { Player, PlayerState } from './player.ts';
import { StripReader } from './strip.ts';

export interface Diagnostics {
  /** What is played, or is about to be. */
  readonly transport: Transport;
  readonly state: PlayerState;
  /** The numbers of the overlay, and the time from page start to the first picture. */
  stats(): Promise<PlaybackStats & { firstFrameMs: number | null }>;
  /** Capture to screen of the next frame, read from its capture strip; null without a strip. */
  glassToGlassMs(): Promise<number | null>;
}

declare global {
  interface Window {
    railbird: Diagnostics;
  }
}

/** Installs the hook. */
export function exposeDiagnostics(player: Player, video: HTMLVideoElement): void {
  const strip = new StripReader();
  window.railbird = {
    get transport() {
      return player.transport;
    },
    get state() {
      return player.state;
    },
    stats: async () => ({ ...(await player.stats()), firstFrameMs: player.firstFrameMs }),
    glassToGlassMs: () => strip.next(video),
  };
}
