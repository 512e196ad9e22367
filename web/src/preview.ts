// A silent look at a table from the lobby: a WHEP session that lives as long as
// a mouse or the keyboard rests on the card. One at a time on the whole page.

import type { Playback } from './playback.ts';
import { openWhep } from './whep.ts';

/** Resting this long on a card starts its preview: crossing it does not. */
const REST_MS = 250;

let running: AbortController | null = null;

/** Starts previews of `table` in `video` while the pointer or focus is on `card`. */
export function previewOn(card: HTMLElement, video: HTMLVideoElement, table: string): void {
  let session: AbortController | null = null;
  const stop = () => session?.abort();
  const start = () => {
    if (session && !session.signal.aborted) return;
    running?.abort();
    running = session = new AbortController();
    void play(video, table, session.signal);
  };
  // A finger has no resting: on touch screens a tap opens the player instead.
  if (matchMedia('(hover: hover)').matches) {
    card.addEventListener('pointerenter', start);
    card.addEventListener('pointerleave', stop);
  }
  card.addEventListener('focusin', (event) => (event.target as Element).matches(':focus-visible') && start());
  card.addEventListener('focusout', stop);
}

/** Ends whatever preview is running. */
export function stopPreview(): void {
  running?.abort();
}

async function play(video: HTMLVideoElement, table: string, signal: AbortSignal): Promise<void> {
  let playback: Playback | null = null;
  try {
    await new Promise((resolve) => setTimeout(resolve, REST_MS));
    signal.throwIfAborted();
    playback = await openWhep(table, video, signal);
    video.dataset['showing'] = '';
    const aborted = new Promise((resolve) => signal.addEventListener('abort', resolve));
    await Promise.race([playback.ended, aborted]);
  } catch {
    // A preview that does not come is no loss; the card says all there is to say.
  } finally {
    delete video.dataset['showing'];
    playback?.close();
  }
}
