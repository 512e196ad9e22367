// How numbers are shown to people. One place, so that the pages agree.

/** What stands where a value is not known. */
export const UNKNOWN = '–';

/** Bits per second as `1.80 Mbit/s` or `64 kbit/s`. */
export function bitrate(bitsPerSecond: number | null | undefined): string {
  if (bitsPerSecond == null || !Number.isFinite(bitsPerSecond)) return UNKNOWN;
  if (bitsPerSecond >= 999_500) return `${(bitsPerSecond / 1e6).toFixed(2)} Mbit/s`;
  return `${Math.round(bitsPerSecond / 1000)} kbit/s`;
}

/** Milliseconds as `183 ms`, or as `2.41 s` from one second on. */
export function milliseconds(value: number | null | undefined): string {
  if (value == null || !Number.isFinite(value)) return UNKNOWN;
  return Math.abs(value) < 999.5 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(2)} s`;
}

/** A length of time as `45 s`, `12 min`, `3 h 05 min` or `2 d 4 h`. */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${String(minutes % 60).padStart(2, '0')} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** A frame rate as `30 fps`; one decimal only where it says something. */
export function frameRate(fps: number | null | undefined): string {
  if (fps == null || !Number.isFinite(fps)) return UNKNOWN;
  return `${Math.abs(fps - Math.round(fps)) < 0.05 ? Math.round(fps) : fps.toFixed(1)} fps`;
}

/** A picture size as `1280×720`. */
export function resolution(width: number | null | undefined, height: number | null | undefined): string {
  return width && height ? `${width}×${height}` : UNKNOWN;
}

/** A count, grouped: `12 345`. */
export function count(value: number | null | undefined): string {
  return value == null ? UNKNOWN : value.toLocaleString('en').replaceAll(',', '\u202f');
}
