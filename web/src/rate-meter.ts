// A rate over a sliding window: LL-HLS brings media in bursts, one per part, so
// the difference of two close readings would jump between zero and double.

/** Length of the window: several parts of any sensible size. */
const WINDOW_MS = 4_000;

/** Counts things and tells how many there were per second of late. */
export class RateMeter {
  /** Totals by time; bounded, because what leaves the window is dropped. */
  #points: { atMs: number; total: number }[] = [];

  /** `amount` more happened now. */
  add(amount: number, nowMs = performance.now()): void {
    this.total((this.#points.at(-1)?.total ?? 0) + amount, nowMs);
  }

  /** Now there have been `total` in all. */
  total(total: number, nowMs = performance.now()): void {
    this.#points.push({ atMs: nowMs, total });
    // One point older than the window stays: it is where the window begins.
    while ((this.#points[1]?.atMs ?? Infinity) < nowMs - WINDOW_MS) this.#points.shift();
  }

  /** Per second; null until there is a second's worth to go by. */
  perSecond(nowMs = performance.now()): number | null {
    const [first] = this.#points;
    const last = this.#points.at(-1);
    if (!first || !last || nowMs - first.atMs < 1_000) return null;
    const from = this.#points.findLast((point) => point.atMs <= nowMs - WINDOW_MS) ?? first;
    return ((last.total - from.total) * 1000) / (nowMs - from.atMs);
  }
}
