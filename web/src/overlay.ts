// The overlay with the numbers behind the picture. It measures only while it is open.

import { make, setText } from './dom.ts';
import { bitrate, count, frameRate, milliseconds, resolution } from './format.ts';
import type { PlaybackStats } from './playback.ts';
import type { Player } from './player.ts';
import { StripReader } from './strip.ts';

const REFRESH_MS = 1_000;

const TRANSPORT_NAMES = { webrtc: 'WebRTC', llhls: 'LL-HLS' };

type Reading = PlaybackStats & { state: string; glassToGlassMs: number | null };

/** Rows from top to bottom; those a transport does not have are left out. */
const ROWS: [label: string, show: (reading: Reading) => string | null][] = [
  ['Transport', (r) => `${TRANSPORT_NAMES[r.transport]} · ${r.state}`],
  ['Glass to glass', (r) => (r.glassToGlassMs === null ? null : milliseconds(r.glassToGlassMs))],
  ['Latency (clock)', (r) => milliseconds(r.latencyMs)],
  ['Round trip', (r) => (r.transport === 'webrtc' ? milliseconds(r.rttMs) : null)],
  ['Jitter buffer', (r) => (r.transport === 'webrtc' ? milliseconds(r.jitterBufferMs) : null)],
  ['Buffer', (r) => (r.transport === 'llhls' ? milliseconds(r.bufferMs) : null)],
  ['Video', (r) => `${r.codec ?? ''} ${resolution(r.width, r.height)}`.trim()],
  ['Frame rate', (r) => frameRate(r.fps)],
  ['Bitrate', (r) => bitrate(r.bitrate)],
  ['Packets lost', (r) => (r.transport === 'webrtc' ? count(r.packetsLost) : null)],
  ['NACK · PLI', (r) => (r.transport === 'webrtc' ? `${count(r.nackCount)} · ${count(r.pliCount)}` : null)],
  ['Frames dropped', (r) => count(r.framesDropped)],
  ['Freezes', (r) => count(r.freezeCount)],
];

/** Fills a `<dl>` once a second while it is shown. */
export class Overlay {
  /** Last glass-to-glass reading; null when the picture carries no strip. */
  glassToGlassMs: number | null = null;

  readonly #list: HTMLElement;
  readonly #video: HTMLVideoElement;
  readonly #player: Player;
  readonly #strip = new StripReader();
  readonly #cells: { label: HTMLElement; value: HTMLElement }[];
  #timer: ReturnType<typeof setInterval> | undefined;
  #frames = 0;

  constructor(list: HTMLElement, video: HTMLVideoElement, player: Player) {
    this.#list = list;
    this.#video = video;
    this.#player = player;
    this.#cells = ROWS.map(([text]) => ({ label: make('dt', {}, text), value: make('dd') }));
    // What was read belongs to the stream before.
    player.addEventListener('change', () => (this.glassToGlassMs = null));
    list.append(...this.#cells.flatMap(({ label, value }) => [label, value]));
  }

  get open(): boolean {
    return !this.#list.hidden;
  }

  toggle(open = !this.open): void {
    if (open === this.open) return;
    this.#list.hidden = !open;
    clearInterval(this.#timer);
    this.#video.cancelVideoFrameCallback?.(this.#frames);
    if (!open) return;
    this.#timer = setInterval(() => void this.#refresh(), REFRESH_MS);
    void this.#refresh();
    this.#watchFrames();
  }

  #watchFrames(): void {
    if (!('requestVideoFrameCallback' in this.#video)) return;
    this.#frames = this.#video.requestVideoFrameCallback((_now, frame) => {
      this.glassToGlassMs = this.#strip.read(this.#video, frame.expectedDisplayTime);
      if (this.open) this.#watchFrames();
    });
  }

  async #refresh(): Promise<void> {
    const stats = await this.#player.stats();
    const reading = { ...stats, state: this.#player.state, glassToGlassMs: this.glassToGlassMs };
    ROWS.forEach(([, show], row) => {
      const text = show(reading);
      const cells = this.#cells[row];
      if (!cells) return;
      cells.label.hidden = cells.value.hidden = text === null;
      setText(cells.value, text ?? '');
    });
  }
}
