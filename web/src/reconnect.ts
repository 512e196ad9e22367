// When to try again: exponential backoff with jitter, so that a gateway which
// restarts is not met by all its viewers in the same instant, and waits that a
// returning network or a returning user can cut short.

/** Shortest and longest wait between two attempts, in milliseconds. */
const FLOOR_MS = 300;
const CEILING_MS = 5_000;

/** A success counts only when it lasted: a stream that is lost at once each time must not be hammered. */
export const STABLE_MS = 10_000;

/** Waits that double, each drawn from the upper half of its range. */
export class Backoff {
  #attempt = 0;
  readonly #random: () => number;

  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  /** The next wait in milliseconds; never shorter than the peer asked for. */
  next(retryAfterMs: number | null = null): number {
    const range = Math.min(CEILING_MS, FLOOR_MS * 2 ** (this.#attempt + 1));
    this.#attempt = Math.min(this.#attempt + 1, 16);
    const wait = range / 2 + (this.#random() * range) / 2;
    if (retryAfterMs === null) return wait;
    // Jitter here too: a Retry-After is the same for everybody who got it.
    return Math.max(wait, retryAfterMs * (1 + this.#random() * 0.2));
  }

  /** Starts from the shortest wait again, after a success. */
  reset(): void {
    this.#attempt = 0;
  }
}

/** Ends a wait before its time, when there is a reason to hope. */
export class Wakeup extends EventTarget {
  constructor() {
    super();
    const wake = () => this.wake();
    globalThis.addEventListener?.('online', wake);
    globalThis.document?.addEventListener('visibilitychange', () => {
      if (document.visibilityState === 'visible') wake();
    });
  }

  wake(): void {
    this.dispatchEvent(new Event('wake'));
  }

  /** Resolves after `ms`, or earlier on a wake-up; rejects when `signal` aborts. */
  wait(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const done = new AbortController();
      const timer = setTimeout(() => finish(resolve), ms);
      const finish = (settle: () => void) => {
        clearTimeout(timer);
        done.abort();
        settle();
      };
      this.addEventListener('wake', () => finish(resolve), { signal: done.signal });
      signal.addEventListener('abort', () => finish(() => reject(signal.reason)), { signal: done.signal });
    });
  }
}
