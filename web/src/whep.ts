// WebRTC viewer by WHEP (draft-ietf-wish-whep). One object is one session: it is
// never restarted. A new network or a restarted gateway gets a new session, which
// costs the same one round trip as an ICE restart and cannot meet a stale peer.

import { deferred } from './deferred.ts';
import { layersAt, type LayerChoice } from './layers.ts';
import { TransportError, firstPicture, type Playback, type PlaybackStats } from './playback.ts';
import { delayFromSenderClock, readViewer, type Counters, type StatsReport } from './rtc-stats.ts';
import { negotiate, type WishSession } from './wish.ts';

/** From the answer to a connected transport; then the player falls back to LL-HLS. */
const CONNECT_WITHIN_MS = 4_000;
/** From there to the first picture: the gateway sends a keyframe at once. */
const PICTURE_WITHIN_MS = 5_000;
/** With neither media nor ICE answers (due every 2.5 s) for this long the session counts as lost. */
const SILENCE_MS = 3_500;
const WATCH_EVERY_MS = 500;

const ABS_CAPTURE_TIME = 'http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time';

/** webrtc-extensions §5: not in every browser, nor in TypeScript's library. */
interface ExtensionControl {
  getHeaderExtensionsToNegotiate?(): { uri: string; direction: RTCRtpTransceiverDirection }[];
  setHeaderExtensionsToNegotiate?(extensions: { uri: string; direction: RTCRtpTransceiverDirection }[]): void;
}

/** What tells that the other end is alive: payload bytes, and answers to ICE checks. */
interface Heard {
  type: string;
  bytesReceived?: number;
  responsesReceived?: number;
}

/** Opens a session and resolves when the first picture is on the screen. */
export async function openWhep(table: string, video: HTMLVideoElement, signal: AbortSignal): Promise<Playback> {
  const peer = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  const stream = new MediaStream();
  peer.addEventListener('track', ({ track }) => stream.addTrack(track));
  for (const kind of ['video', 'audio'] as const) {
    const transceiver = peer.addTransceiver(kind, { direction: 'recvonly' });
    askForCaptureTime(transceiver);
    playSoon(transceiver.receiver);
  }

  let session: WishSession | null = null;
  try {
    session = await negotiate(peer, `/whep/${table}`, null, signal);
    await connected(peer, signal);
    video.removeAttribute('src');
    video.srcObject = stream;
    video.play().catch(() => undefined);
    await firstPicture(video, PICTURE_WITHIN_MS, signal);
    return new WhepPlayback(peer, session);
  } catch (error) {
    peer.close();
    session?.end();
    throw error;
  }
}

class WhepPlayback implements Playback {
  readonly transport = 'webrtc';
  readonly layers: LayerChoice | null;
  readonly ended: Promise<Error>;
  readonly #peer: RTCPeerConnection;
  readonly #session: WishSession;
  readonly #watch: ReturnType<typeof setInterval>;
  #counters: Counters | null = null;
  #heard = 0;
  #heardAtMs = performance.now();

  constructor(peer: RTCPeerConnection, session: WishSession) {
    this.#peer = peer;
    this.#session = session;
    this.layers = session.layersUrl === null ? null : layersAt(session.layersUrl);
    const { promise, resolve } = deferred<Error>();
    this.ended = promise;
    const lost = (why: string) => resolve(new TransportError('lost', why));
    onTransportGone(peer, lost);
    this.#watch = setInterval(() => void this.#listen(lost), WATCH_EVERY_MS);
  }

  async stats(): Promise<PlaybackStats> {
    const report = (await this.#peer.getStats()) as unknown as StatsReport;
    const { stats, counters } = readViewer(report, this.#counters, Date.now());
    // Rates need some distance between two readings, whoever asks and how often.
    if (counters.atMs - (this.#counters?.atMs ?? 0) > 900) this.#counters = counters;
    stats.latencyMs ??= this.#captureDelay();
    return stats;
  }

  close(): void {
    clearInterval(this.#watch);
    this.#peer.close();
    this.#session.end();
  }

  /** Ends the session when the gateway has gone without a goodbye. */
  async #listen(lost: (why: string) => void): Promise<void> {
    let heard = 0;
    (await this.#peer.getStats()).forEach((entry: Heard) => {
      if (entry.type === 'transport') heard += entry.bytesReceived ?? 0;
      if (entry.type === 'candidate-pair') heard += entry.responsesReceived ?? 0;
    });
    const now = performance.now();
    if (heard !== this.#heard) this.#heardAtMs = now;
    this.#heard = heard;
    if (now - this.#heardAtMs > SILENCE_MS) lost('nothing arrives any more');
  }

  /** From abs-capture-time, where the browser passes it on. */
  #captureDelay(): number | null {
    const receiver = this.#peer.getReceivers().find(({ track }) => track.kind === 'video');
    const source = receiver?.getSynchronizationSources()[0] as { captureTimestamp?: number } | undefined;
    return delayFromSenderClock(source?.captureTimestamp ?? null, Date.now());
  }
}

function askForCaptureTime(transceiver: RTCRtpTransceiver & ExtensionControl): void {
  const extensions = transceiver.getHeaderExtensionsToNegotiate?.();
  const wanted = extensions?.find(({ uri }) => uri === ABS_CAPTURE_TIME);
  if (!extensions || !wanted) return;
  wanted.direction = 'recvonly';
  transceiver.setHeaderExtensionsToNegotiate?.(extensions);
}

/** Responsiveness before smoothness: the jitter buffer keeps only what the network needs. */
function playSoon(receiver: RTCRtpReceiver): void {
  if ('jitterBufferTarget' in receiver) receiver.jitterBufferTarget = 0;
}

/** Resolves when ICE and DTLS are up; rejects when they will not be, or not soon enough. */
function connected(peer: RTCPeerConnection, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = new AbortController();
    const finish = (settle: () => void) => {
      clearTimeout(timer);
      done.abort();
      settle();
    };
    const fail = () => reject(new TransportError('no-connection', 'WebRTC does not get through this network'));
    const timer = setTimeout(() => finish(fail), CONNECT_WITHIN_MS);
    const look = () => {
      if (peer.connectionState === 'connected') finish(resolve);
      if (peer.connectionState === 'failed') finish(fail);
    };
    peer.addEventListener('connectionstatechange', look, { signal: done.signal });
    signal.addEventListener('abort', () => finish(() => reject(signal.reason)), { signal: done.signal });
    if (signal.aborted) finish(() => reject(signal.reason));
    look();
  });
}

function onTransportGone(peer: RTCPeerConnection, lost: (why: string) => void): void {
  peer.addEventListener('connectionstatechange', () => {
    if (['failed', 'closed'].includes(peer.connectionState)) lost(`connection ${peer.connectionState}`);
  });
  // A close_notify of the gateway (stream over, drain) shows here first.
  const dtls = peer.getReceivers()[0]?.transport;
  dtls?.addEventListener('statechange', () => {
    if (dtls.state === 'closed') lost('closed by the gateway');
  });
}
