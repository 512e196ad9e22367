// Keeps a table on the screen: WebRTC first, LL-HLS where WebRTC does not get
// through, and again from the start, with backoff, whenever the stream is lost.
// The only place that decides about transports and retries; `whep.ts` and
// `hls-player.ts` do one attempt each and report how it went.

import { GatewayError } from './api.ts';
import { openHls } from './hls-player.ts';
import type { LayerChoice } from './layers.ts';
import { TransportError, emptyStats, type Playback, type PlaybackStats, type Transport } from './playback.ts';
import { Backoff, STABLE_MS, Wakeup } from './reconnect.ts';
import { openWhep } from './whep.ts';

export type PlayerState =
  /** The first attempt is under way. */
  | 'connecting'
  /** A picture is on the screen. */
  | 'playing'
  /** The gateway is there, the table is not live. */
  | 'waiting'
  /** The stream or the gateway went away. */
  | 'reconnecting';

/** Attempts in a row without a picture, or lost right away, before the other transport is tried. */
const FAILURES_BEFORE_FALLBACK = 3;

/** Emits `change` when `state`, `transport` or `detail` changes. */
export class Player extends EventTarget {
  state: PlayerState = 'connecting';
  /** What is played, or is about to be. */
  transport: Transport;
  /** One more sentence about the state, or empty. */
  detail = '';
  /** From the start of the page to the first picture, milliseconds. */
  firstFrameMs: number | null = null;

  readonly #table: string;
  readonly #video: HTMLVideoElement;
  readonly #wakeup = new Wakeup();
  readonly #backoff = new Backoff();
  #playback: Playback | null = null;
  #run = new AbortController();
  #failures = 0;
  #webrtcWorked = false;

  constructor(table: string, video: HTMLVideoElement, transport: Transport) {
    super();
    this.#table = table;
    this.#video = video;
    this.transport = transport;
    // A session left open would count as a viewer until its consent expires.
    addEventListener('pagehide', () => this.stop());
    // Back from the back/forward cache.
    addEventListener('pageshow', (event) => event.persisted && this.start());
  }

  start(): void {
    this.stop();
    this.#run = new AbortController();
    void this.#keepPlaying(this.#run.signal);
  }

  stop(): void {
    this.#run.abort();
    this.#playback?.close();
    this.#playback = null;
  }

  /** Changes over to another transport, as the viewer asks. */
  switchTo(transport: Transport): void {
    if (transport === this.transport) return;
    this.#failures = 0;
    this.#backoff.reset();
    this.#set('connecting', '', transport);
    this.start();
  }

  /** Where the layers of what is played are chosen; null when there is no choice. */
  get layers(): LayerChoice | null {
    return this.#playback?.layers ?? null;
  }

  async stats(): Promise<PlaybackStats> {
    return (await this.#playback?.stats()) ?? emptyStats(this.transport);
  }

  async #keepPlaying(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const failure = await this.#playOnce(signal);
      if (signal.aborted) return;
      const pause = this.#judge(failure);
      await this.#wakeup.wait(pause, signal).catch(() => undefined);
    }
  }

  /** One session from its request to its end; the error says why it ended. */
  async #playOnce(signal: AbortSignal): Promise<Error> {
    try {
      const open = this.transport === 'webrtc' ? openWhep : openHls;
      const playback = await open(this.#table, this.#video, signal);
      if (signal.aborted) {
        playback.close();
        return signal.reason;
      }
      this.#playback = playback;
      this.#onPicture();
      const stable = setTimeout(() => !signal.aborted && this.#onStable(), STABLE_MS);
      const reason = await playback.ended;
      clearTimeout(stable);
      playback.close();
      if (this.#playback === playback) this.#playback = null;
      return reason;
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error));
    }
  }

  #onPicture(): void {
    this.firstFrameMs ??= performance.now();
    if (this.transport === 'webrtc') this.#webrtcWorked = true;
    this.#set('playing', '');
  }

  #onStable(): void {
    this.#failures = 0;
    this.#backoff.reset();
  }

  /** Decides what comes after a failure. Returns how long to wait, milliseconds. */
  #judge(failure: Error): number {
    if (failure instanceof GatewayError) return this.#judgeAnswer(failure);
    if (failure instanceof TransportError) {
      this.#failures++;
      const blocked = failure.reason === 'no-connection' && !this.#webrtcWorked;
      if (this.transport === 'webrtc' && (blocked || this.#failures >= FAILURES_BEFORE_FALLBACK)) {
        return this.#fallBack('WebRTC does not get through this network');
      }
      this.#set('reconnecting', failure.message);
    } else {
      // `fetch` failed: nobody answers.
      this.#set('reconnecting', 'the gateway does not answer');
    }
    return this.#backoff.next();
  }

  #judgeAnswer(error: GatewayError): number {
    if (error.status === 406 && this.transport === 'webrtc') {
      return this.#fallBack('this browser and the table share no WebRTC codec');
    }
    // 409: the publisher is connecting; no media has come yet.
    if (error.status === 404 || error.kind === 'table-not-live-yet') {
      this.#failures = 0;
      this.#set('waiting', '');
    } else {
      this.#set('reconnecting', error.message);
    }
    return this.#backoff.next(error.retryAfterMs);
  }

  #fallBack(why: string): number {
    this.#failures = 0;
    this.#backoff.reset();
    this.#set('connecting', `${why}: using LL-HLS`, 'llhls');
    return 0;
  }

  #set(state: PlayerState, detail: string, transport = this.transport): void {
    if (state === this.state && detail === this.detail && transport === this.transport) return;
    this.state = state;
    this.detail = detail;
    this.transport = transport;
    this.dispatchEvent(new Event('change'));
  }
}
