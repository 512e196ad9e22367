// The quality menu of the player: "Auto" and the layers that flow. It shows only
// where there is more than one. It looks at them when a playback begins, when the
// menu is opened and when the picture changes its size, and never in between.

import { make } from './dom.ts';
import type { LayerChoice, LayerState } from './layers.ts';
import type { Player } from './player.ts';

const AUTO = '';
/** Layers that did not flow when a playback began may do by then. */
const LOOK_AGAIN_MS = 3_000;

export class QualityMenu {
  readonly #select: HTMLSelectElement;
  readonly #frame: HTMLElement;
  readonly #player: Player;
  /** The layers of what is on the screen; null without a choice. */
  #layers: LayerChoice | null = null;
  /** The viewer's choice, kept for the next playback. */
  #wanted: string | null = null;
  /** Options that a viewer looks at must not be exchanged. */
  #shown = '';

  constructor(frame: HTMLElement, select: HTMLSelectElement, video: HTMLVideoElement, player: Player) {
    this.#frame = frame;
    this.#select = select;
    this.#player = player;
    player.addEventListener('change', () => this.#follow());
    video.addEventListener('resize', () => void this.#refresh());
    select.addEventListener('focus', () => void this.#refresh());
    select.addEventListener('change', () => void this.#choose(select.value === AUTO ? null : select.value));
    this.#follow();
  }

  /** A new playback, or none any more. */
  #follow(): void {
    const layers = this.#player.state === 'playing' ? this.#player.layers : null;
    if (layers === this.#layers) return;
    this.#layers = layers;
    this.#show(null);
    if (layers === null) return;
    // A playback begins without a choice; the viewer's goes on from the one before.
    void (this.#wanted === null ? this.#refresh() : this.#choose(this.#wanted));
    setTimeout(() => layers === this.#layers && void this.#refresh(), LOOK_AGAIN_MS);
  }

  async #choose(layer: string | null): Promise<void> {
    this.#wanted = layer;
    const chosen = await this.#ask((layers) => layers.choose(layer));
    // The layer is gone, or the gateway is busy: show what holds.
    if (!chosen) await this.#refresh();
  }

  async #refresh(): Promise<void> {
    await this.#ask((layers) => layers.read());
  }

  /** True when there was an answer. */
  async #ask(request: (layers: LayerChoice) => Promise<LayerState | null>): Promise<boolean> {
    const layers = this.#layers;
    if (layers === null) return true;
    // What goes wrong here leaves the picture as it is: the menu shows what it knew.
    const state = await request(layers).catch(() => undefined);
    if (state === undefined) return layers !== this.#layers;
    if (layers === this.#layers) this.#show(state);
    return true;
  }

  #show(state: LayerState | null): void {
    const options = state?.options ?? [];
    this.#frame.hidden = options.length < 2;
    if (state === null || this.#frame.hidden) return;
    const sent = options.find(({ id }) => id === state.sent);
    const auto = state.chosen === null && sent ? `Auto (${sent.label})` : 'Auto';
    const entries = [{ id: AUTO, label: auto }, ...options];
    const shown = JSON.stringify(entries);
    if (shown !== this.#shown) {
      this.#shown = shown;
      this.#select.replaceChildren(...entries.map(({ id, label }) => make('option', { value: id }, label)));
    }
    this.#select.value = state.chosen ?? AUTO;
  }
}
