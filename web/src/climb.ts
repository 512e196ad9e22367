// When a viewer who stalled and was given a smaller layer may try the larger one again.
// Only the try tells whether the path carries it by now, and may cost another stall: each
// that fails doubles the wait for the next one.

const FIRST_WAIT_MS = 30_000;
const LONGEST_WAIT_MS = 600_000;

export class Climb {
  #waitMs = FIRST_WAIT_MS;
  /** The last step, down or up. */
  #steppedAtMs: number | null = null;
  #wentUp = false;

  /** The picture stood still; the layer is smaller from now on, or as small as it can be. */
  fell(nowMs: number): void {
    const failed = this.#wentUp && this.#steppedAtMs !== null && nowMs - this.#steppedAtMs < this.#waitMs;
    this.#waitMs = failed ? Math.min(2 * this.#waitMs, LONGEST_WAIT_MS) : FIRST_WAIT_MS;
    this.#steppedAtMs = nowMs;
    this.#wentUp = false;
  }

  /** Whether it has been quiet for long enough since the last step. */
  isDue(nowMs: number): boolean {
    return this.#steppedAtMs !== null && nowMs - this.#steppedAtMs >= this.#waitMs;
  }

  /** The next larger layer is tried. */
  climbed(nowMs: number): void {
    this.#steppedAtMs = nowMs;
    this.#wentUp = true;
  }
}
