// Keeps a table on the air: publishes, and again from the start, with backoff,
// when the gateway or the network was away. What cannot get better by waiting
// (a refused token, a codec nobody takes) ends it with the gateway's own words.

import { GatewayError } from './api.ts';
import type { EncodingChoice } from './encodings.ts';
import { Backoff, STABLE_MS, Wakeup } from './reconnect.ts';
import type { PublicationStats } from './rtc-stats.ts';
import { openWhip, type Publication } from './whip.ts';

export type PublisherState = 'idle' | 'connecting' | 'live' | 'reconnecting' | 'failed';

/** Answers that the same request may get past later. */
const WORTH_RETRYING = new Set([404, 408, 409, 425, 429, 500, 502, 503, 504]);

const TOKEN_KEY = 'railbird.publisher-token';

/** A random name for this tab: a reload keeps it, and so may take its own table over. */
export function tabToken(): string {
  let token = sessionStorage.getItem(TOKEN_KEY);
  if (!token) {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    token = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
    sessionStorage.setItem(TOKEN_KEY, token);
  }
  return token;
}

/** Emits `change` when `state` or `detail` changes. */
export class Publisher extends EventTarget {
  state: PublisherState = 'idle';
  /** Why, in the gateway's words where it gave any; or empty. */
  detail = '';
  readonly #wakeup = new Wakeup();
  #publication: Publication | null = null;
  #run: AbortController | null = null;

  /** Goes on the air with a stream that the caller keeps open until `stop`. */
  start(table: string, stream: MediaStream, choice: EncodingChoice): void {
    this.stop();
    this.#run = new AbortController();
    this.#set('connecting', '');
    void this.#keepPublishing(table, stream, choice, this.#run.signal);
  }

  /** Leaves the air. */
  stop(): void {
    this.#run?.abort();
    this.#run = null;
    this.#publication?.close();
    this.#publication = null;
    this.#set('idle', '');
  }

  async setBitrate(bitrate: number): Promise<void> {
    await this.#publication?.setBitrate(bitrate);
  }

  async stats(): Promise<PublicationStats | null> {
    return (await this.#publication?.stats()) ?? null;
  }

  async #keepPublishing(
    table: string,
    stream: MediaStream,
    choice: EncodingChoice,
    signal: AbortSignal,
  ): Promise<void> {
    const backoff = new Backoff();
    while (!signal.aborted) {
      let failure: unknown;
      try {
        // `choice` is read anew each time: the bitrate may have been moved meanwhile.
        const publication = await openWhip(table, tabToken(), stream, choice, signal);
        if (signal.aborted) return publication.close();
        this.#publication = publication;
        this.#set('live', '');
        const stable = setTimeout(() => backoff.reset(), STABLE_MS);
        failure = await publication.ended;
        clearTimeout(stable);
        publication.close();
        this.#publication = null;
      } catch (error) {
        failure = error;
      }
      if (signal.aborted) return;
      if (!isWorthRetrying(failure)) return this.#set('failed', textOf(failure));
      this.#set('reconnecting', textOf(failure));
      const retryAfterMs = failure instanceof GatewayError ? failure.retryAfterMs : null;
      await this.#wakeup.wait(backoff.next(retryAfterMs), signal).catch(() => undefined);
    }
  }

  #set(state: PublisherState, detail: string): void {
    if (state === this.state && detail === this.detail) return;
    this.state = state;
    this.detail = detail;
    this.dispatchEvent(new Event('change'));
  }
}

function isWorthRetrying(failure: unknown): boolean {
  // The browser refused what we asked of it (codec, layers): so it will again.
  if (failure instanceof DOMException && failure.name !== 'AbortError') return false;
  return !(failure instanceof GatewayError) || WORTH_RETRYING.has(failure.status);
}

function textOf(failure: unknown): string {
  if (failure instanceof GatewayError) return failure.message;
  if (failure instanceof TypeError) return 'the gateway does not answer';
  return failure instanceof Error ? failure.message : String(failure);
}
