// What the player knows of a transport: it opens, it tells how it is doing, it
// ends. WHEP and LL-HLS each implement this once; the player chooses between them.

import type { LayerChoice } from './layers.ts';

export type Transport = 'webrtc' | 'llhls';

/** One reading of a playback. `null`: not known, or the transport has no such thing. */
export interface PlaybackStats {
  transport: Transport;
  /** Video codec as a short name, such as `H264`. */
  codec: string | null;
  /** Size of the decoded picture, pixels. */
  width: number | null;
  height: number | null;
  /** Frames decoded per second. */
  fps: number | null;
  /** Bits received per second, audio and video together. */
  bitrate: number | null;
  /** Round trip of the media connection, milliseconds. */
  rttMs: number | null;
  /** Mean time a video frame spent in the jitter buffer, milliseconds. */
  jitterBufferMs: number | null;
  /** Media buffered ahead of the playhead, milliseconds (LL-HLS). */
  bufferMs: number | null;
  packetsLost: number | null;
  nackCount: number | null;
  pliCount: number | null;
  framesDecoded: number | null;
  framesDropped: number | null;
  /** Times the picture stood still when it should have moved. */
  freezeCount: number | null;
  /** Capture to playout by the clocks of sender and viewer, milliseconds. */
  latencyMs: number | null;
}

/** A stream that is on the screen. */
export interface Playback {
  readonly transport: Transport;
  /** Where its layers are chosen; null when there is no choice. */
  readonly layers: LayerChoice | null;
  /** Resolves, never rejects, with the reason once the playback is over. */
  readonly ended: Promise<Error>;
  stats(): Promise<PlaybackStats>;
  /** Stops and releases everything, at the gateway too. */
  close(): void;
}

/** The transport itself did not work: the gateway answered, but no media came. */
export class TransportError extends Error {
  override readonly name = 'TransportError';

  constructor(
    readonly reason: 'no-connection' | 'no-picture' | 'lost',
    message: string,
  ) {
    super(message);
  }
}

/** A reading with nothing known yet. */
export function emptyStats(transport: Transport): PlaybackStats {
  return {
    transport,
    codec: null,
    width: null,
    height: null,
    fps: null,
    bitrate: null,
    rttMs: null,
    jitterBufferMs: null,
    bufferMs: null,
    packetsLost: null,
    nackCount: null,
    pliCount: null,
    framesDecoded: null,
    framesDropped: null,
    freezeCount: null,
    latencyMs: null,
  };
}

/** Starts the element if the browser lets us; resolves when the first picture is there. */
export function firstPicture(video: HTMLVideoElement, withinMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = new AbortController();
    const finish = (settle: () => void) => {
      clearTimeout(timer);
      done.abort();
      settle();
    };
    const late = new TransportError('no-picture', 'connected, but no picture arrived');
    const timer = setTimeout(() => finish(() => reject(late)), withinMs);
    video.addEventListener('loadeddata', () => finish(resolve), { signal: done.signal });
    signal.addEventListener('abort', () => finish(() => reject(signal.reason)), { signal: done.signal });
    if (signal.aborted) finish(() => reject(signal.reason));
  });
}
