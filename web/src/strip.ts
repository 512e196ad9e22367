// Glass-to-glass latency, read from the picture itself. Streams with a capture
// strip carry the moment of their capture as black and white cells along the
// lower edge: 40 cells over the full width, 32 of 720 lines high. Cells 0-1 and
// 38-39 are sync marks, the 36 between are bits, most significant first: UTC
// milliseconds modulo 2^32, then the XOR of its eight nibbles as a checksum.

export const CELLS = 40;
const DATA_BITS = 36;
const FIRST_DATA_CELL = 2;
/** Height of the strip as a share of the picture. */
const STRIP_HEIGHT = 32 / 720;
/** Cells are scaled to this many pixels; their inner half is averaged. */
const CELL_PX = 8;
const THRESHOLD = 128;

/** Reads 40 cell brightnesses (0-255). UTC milliseconds mod 2^32, or null if it is not a valid strip. */
export function decodeCells(luma: ArrayLike<number>): number | null {
  if (luma.length !== CELLS) return null;
  const white = (cell: number) => (luma[cell] ?? 0) >= THRESHOLD;
  if (white(0) || !white(1) || !white(38) || white(39)) return null;
  let value = 0;
  let checksum = 0;
  let nibble = 0;
  for (let bit = 0; bit < DATA_BITS; bit++) {
    nibble = (nibble << 1) | Number(white(FIRST_DATA_CELL + bit));
    if (bit % 4 !== 3) continue;
    // Eight nibbles of value, folded into the checksum; the ninth has to undo it.
    checksum ^= nibble;
    if (bit < 32) value = value * 16 + nibble;
    nibble = 0;
  }
  return checksum === 0 ? value : null;
}

/** `now - captured` where only the low 32 bits of the capture time are known; may be negative. */
export function delaySince(captured: number, nowUnixMs: number): number {
  return (Math.round(nowUnixMs) - captured) | 0;
}

/** Mean brightness of the middle of each cell, from RGBA pixels of a strip 40 cells wide. */
export function cellLuma(pixels: Uint8ClampedArray): number[] {
  const width = CELLS * CELL_PX;
  const [from, to] = [CELL_PX / 4, (CELL_PX * 3) / 4];
  return Array.from({ length: CELLS }, (_, cell) => {
    let sum = 0;
    for (let y = from; y < to; y++) {
      for (let x = cell * CELL_PX + from; x < cell * CELL_PX + to; x++) {
        const at = (y * width + x) * 4;
        // BT.709 luma; the strip is grey, so the weights hardly matter.
        sum += 0.2126 * (pixels[at] ?? 0) + 0.7152 * (pixels[at + 1] ?? 0) + 0.0722 * (pixels[at + 2] ?? 0);
      }
    }
    return sum / (to - from) ** 2;
  });
}

/** Reads the strip of the picture that a video element shows now. */
export class StripReader {
  readonly #context: CanvasRenderingContext2D | null;

  constructor() {
    const canvas = document.createElement('canvas');
    canvas.width = CELLS * CELL_PX;
    canvas.height = CELL_PX;
    this.#context = canvas.getContext('2d', { willReadFrequently: true });
  }

  /** Glass-to-glass milliseconds of a frame shown at `shownAtMs` (performance clock), or null without a strip. */
  read(video: HTMLVideoElement, shownAtMs: number): number | null {
    const { videoWidth: width, videoHeight: height } = video;
    if (!this.#context || !width || !height) return null;
    const lines = height * STRIP_HEIGHT;
    this.#context.drawImage(video, 0, height - lines, width, lines, 0, 0, CELLS * CELL_PX, CELL_PX);
    const { data } = this.#context.getImageData(0, 0, CELLS * CELL_PX, CELL_PX);
    const captured = decodeCells(cellLuma(data));
    if (captured === null) return null;
    return delaySince(captured, Date.now() + (shownAtMs - performance.now()));
  }

  /** The same for the next frame that is shown; null when none is within `withinMs`. */
  next(video: HTMLVideoElement, withinMs = 1000): Promise<number | null> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        video.cancelVideoFrameCallback(handle);
        resolve(null);
      }, withinMs);
      const handle = video.requestVideoFrameCallback((_now, frame) => {
        clearTimeout(timer);
        resolve(this.read(video, frame.expectedDisplayTime));
      });
    });
  }
}
