// Which simulcast layers a viewer may be sent, which one it is sent, and its choice
// among them. Over WebRTC the gateway is asked, by WHEP's layer extension, to which it
// links in its answer when there is more than one; over LL-HLS the page chooses itself.

import { readProblem } from './api.ts';
import { bitrate } from './format.ts';

/** The extension's name, as a `Link` header gives it. */
export const LAYER_RELATION = 'urn:ietf:params:whep:ext:core:layer';

/** One layer that flows. */
export interface LayerOption {
  /** Its `rid`. */
  id: string;
  /** For people, such as `720p`. */
  label: string;
}

/** What the gateway says of a session's video. */
export interface LayerState {
  /** Best first. */
  options: LayerOption[];
  /** What the viewer chose; null: the gateway chooses. */
  chosen: string | null;
  /** What is sent; null at the start, and while the path carries no video at all. */
  sent: string | null;
}

/** Where a viewer looks at the layers of what is played, and chooses. */
export interface LayerChoice {
  /** Null: there is no video. Rejects with `GatewayError`, or `TypeError` when nobody answers. */
  read(): Promise<LayerState | null>;
  /** Chooses a layer by its `id`, or with null leaves the choice open. Rejects as `read` does. */
  choose(id: string | null): Promise<LayerState | null>;
}

/** A layer as the extension lists it. */
export interface ListedLayer {
  encodingId: string;
  width?: number;
  height?: number;
  bitrate?: number;
}

/** The target of the `Link` (RFC 8288) with this relation, as an absolute address, or null. */
export function linkTarget(header: string | null, relation: string, base: string): string | null {
  for (const [, target, parameters] of (header ?? '').matchAll(/<([^>]*)>((?:\s*;[^,<]*)*)/g)) {
    const relations = /;\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]+))/i.exec(parameters ?? '');
    const names = (relations?.[1] ?? relations?.[2] ?? '').split(/\s+/);
    if (target !== undefined && names.includes(relation)) return new URL(target, base).href;
  }
  return null;
}

/** Reads the answer of the extension; null when it has no video. */
export function parseLayers(body: unknown): LayerState | null {
  if (typeof body !== 'object' || body === null) return null;
  const media = Object.values(body).find((view) => Array.isArray(view?.layers)) as
    | { layers: unknown[]; chosen?: unknown; sent?: unknown }
    | undefined;
  if (!media) return null;
  const text = (value: unknown) => (typeof value === 'string' ? value : null);
  return { options: optionsOf(media.layers.filter(isListed)), chosen: text(media.chosen), sent: text(media.sent) };
}

/** The extension at `url`: layers are chosen by their `rid`, and without a choice the gateway chooses. */
export function layersAt(url: string): LayerChoice {
  const headers = { 'Content-Type': 'application/json' };
  return {
    read: async () => stateOf(await fetch(url, { cache: 'no-store' })),
    choose: async (encodingId) =>
      stateOf(await fetch(url, { method: 'POST', headers, body: JSON.stringify({ encodingId }) })),
  };
}

async function stateOf(response: Response): Promise<LayerState | null> {
  if (!response.ok) throw await readProblem(response);
  return parseLayers(await response.json());
}

function isListed(value: unknown): value is ListedLayer {
  return typeof (value as Partial<ListedLayer> | null)?.encodingId === 'string';
}

/** Pixels before bits. */
function rank(layer: ListedLayer): number {
  return (layer.width ?? 0) * (layer.height ?? 0) * 1e3 + (layer.bitrate ?? 0) / 1e6;
}

/** Best first; named by their height, with the bitrate where that does not tell them apart. */
export function optionsOf(listed: ListedLayer[]): LayerOption[] {
  const layers = listed.toSorted((a, b) => rank(b) - rank(a));
  const heights = layers.map((layer) => layer.height);
  return layers.map((layer) => {
    const name = layer.height ? `${layer.height}p` : layer.encodingId;
    const alike = layer.height && heights.filter((height) => height === layer.height).length > 1;
    return { id: layer.encodingId, label: alike ? `${name} · ${bitrate(layer.bitrate)}` : name };
  });
}
