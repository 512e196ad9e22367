// Keeps a viewer as far behind the live edge as the gateway asks for (PART-HOLD-BACK):
// no further, for a bet's sake, and no closer, for there is nothing in store then.
// hls.js catches up by itself only with more than a second in store, which a table with
// short parts never has. Speeds are small enough not to be heard.

/** Below this distance from the target nothing is done, seconds. */
const NEAR = 0.04;
/** The picture may run so much faster and slower. */
const FASTEST = 1.1;
const SLOWEST = 0.95;
/** Whoever is further behind than this has better things to hurry for. */
const FAR = 3;
const HURRY = 1.5;
/** Media in store without which nobody hurries, seconds. */
const MIN_BUFFER = 0.15;

/**
 * The speed of playback that leads to the target.
 *
 * @param latency how far the playhead is behind the live edge, seconds
 * @param target how far it should be
 * @param buffer media ahead of the playhead, seconds
 */
export function rateTowards(latency: number, target: number, buffer: number): number {
  const behind = latency - target;
  if (!Number.isFinite(behind) || Math.abs(behind) <= NEAR) return 1;
  if (behind < 0) return SLOWEST;
  if (buffer < MIN_BUFFER) return 1;
  return behind > FAR ? HURRY : FASTEST;
}
