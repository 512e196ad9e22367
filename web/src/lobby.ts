// The lobby: one card per live table, kept up to date by polling.

import { GatewayError, bestLayer, fetchTables, type Table } from './api.ts';
import { byId, copyButton, make, setText } from './dom.ts';
import { bitrate, count, duration, frameRate, resolution } from './format.ts';
import { previewOn, stopPreview } from './preview.ts';
import { Backoff, Wakeup } from './reconnect.ts';

const POLL_MS = 2_000;

const cards = new Map<string, Card>();

/** A card updates in place, so that focus, selection and preview survive. */
class Card {
  readonly element: HTMLElement;
  readonly #video = make('video', { muted: '', playsinline: '', tabindex: '-1', 'aria-hidden': 'true' });
  readonly #meta = make('p', { class: 'meta' });
  readonly #webrtc = make('dd');
  readonly #llhls = make('dd');
  readonly #uptime = make('dd');

  constructor(table: string) {
    const path = `/play/${table}`;
    this.#video.muted = true;
    this.element = make(
      'li',
      { class: 'card' },
      make(
        'a',
        { class: 'screen', href: path, tabindex: '-1', 'aria-hidden': 'true' },
        make('span', { class: 'monogram' }, table.slice(0, 1).toUpperCase()),
        this.#video,
        make('span', { class: 'badge' }, 'Live'),
      ),
      make('h2', {}, make('a', { href: path }, table)),
      this.#meta,
      make(
        'dl',
        { class: 'facts' },
        ...fact('WebRTC', this.#webrtc),
        ...fact('LL-HLS', this.#llhls),
        ...fact('On air', this.#uptime),
      ),
      make(
        'div',
        { class: 'actions' },
        make('a', { class: 'button', href: `${path}?transport=webrtc` }, 'Watch', hidden(` ${table} over WebRTC`)),
        make('a', { class: 'button quiet', href: `${path}?transport=llhls` }, 'LL-HLS', hidden(` of ${table}`)),
      ),
    );
    previewOn(this.element, this.#video, table);
  }

  show(table: Table, now: number): void {
    const video = bestLayer(table, 'video');
    const audio = bestLayer(table, 'audio');
    const layers = table.tracks.find(({ kind }) => kind === 'video')?.layers.length ?? 0;
    const total = table.tracks.flatMap((track) => track.layers).reduce((sum, layer) => sum + (layer.bitrate || 0), 0);
    const parts = [
      [video?.codec, audio?.codec].filter(Boolean).join(' + '),
      video?.layer && resolution(video.layer.width, video.layer.height),
      video?.layer?.fps && frameRate(video.layer.fps),
      total > 0 && bitrate(total),
      layers > 1 && `${layers} layers`,
    ];
    setText(this.#meta, parts.filter(Boolean).join(' · '));
    setText(this.#webrtc, count(table.viewers.webrtc));
    setText(this.#llhls, count(table.viewers.llhls));
    const startedAt = Date.parse(table.startedAt);
    setText(this.#uptime, Number.isNaN(startedAt) ? '–' : duration(now - startedAt));
  }
}

function fact(name: string, value: HTMLElement): HTMLElement[] {
  return [make('div', {}, make('dt', {}, name), value)];
}

function hidden(text: string): HTMLElement {
  return make('span', { class: 'sr' }, text);
}

function showTables(tables: Table[]): void {
  const live = tables.filter((table) => table.live).sort((a, b) => a.table.localeCompare(b.table));
  const names = new Set(live.map(({ table }) => table));
  for (const [name, card] of cards) {
    if (names.has(name)) continue;
    card.element.remove();
    cards.delete(name);
  }
  const list = byId('tables');
  live.forEach((table, index) => {
    const card = cards.get(table.table) ?? new Card(table.table);
    cards.set(table.table, card);
    card.show(table, Date.now());
    if (list.children[index] !== card.element) list.insertBefore(card.element, list.children[index] ?? null);
  });
  byId('empty').hidden = live.length > 0;
  setState('ok', live.length === 1 ? '1 table live' : `${live.length} tables live`);
}

function setState(state: 'ok' | 'away', text: string): void {
  byId('lobby').dataset['state'] = state;
  setText(byId('state'), text);
}

async function poll(): Promise<never> {
  const backoff = new Backoff();
  const wakeup = new Wakeup();
  const forever = new AbortController().signal;
  for (;;) {
    let pause = POLL_MS;
    try {
      showTables(await fetchTables(AbortSignal.timeout(5_000)));
      backoff.reset();
    } catch (error) {
      const said = error instanceof GatewayError ? error : null;
      setState('away', said ? `The gateway says: ${said.message}` : 'The gateway does not answer – trying again');
      pause = backoff.next(said?.retryAfterMs);
    }
    await wakeup.wait(pause, forever);
    // A lobby nobody looks at asks for nothing.
    while (document.hidden) await wakeup.wait(60_000, forever);
  }
}

setText(byId('command'), byId('command').textContent?.replace('{origin}', location.origin) ?? '');
copyButton(byId<HTMLButtonElement>('copy'), () => byId('command').textContent ?? '');
addEventListener('pagehide', stopPreview);
void poll();
