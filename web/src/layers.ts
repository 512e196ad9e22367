// The layer extension of WHEP: which simulcast layers a session may be sent, which
// one it is sent, and the viewer's choice among them. The gateway links to it in its
// answer, when there is more than one.

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

/** A layer as the extension lists it. */
interface ListedLayer {
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
  const layers = media.layers.filter(isListed).sort((a, b) => rank(b) - rank(a));
  const text = (value: unknown) => (typeof value === 'string' ? value : null);
  return { options: label(layers), chosen: text(media.chosen), sent: text(media.sent) };
}

/** `GET` on the extension. Rejects with `GatewayError`, or `TypeError` when nobody answers. */
export async function fetchLayers(url: string): Promise<LayerState | null> {
  return read(await fetch(url, { cache: 'no-store' }));
}

/** Chooses a layer by its `rid`, or with null leaves the choice to the gateway. */
export async function chooseLayer(url: string, encodingId: string | null): Promise<LayerState | null> {
  const headers = { 'Content-Type': 'application/json' };
  return read(await fetch(url, { method: 'POST', headers, body: JSON.stringify({ encodingId }) }));
}

async function read(response: Response): Promise<LayerState | null> {
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

/** Names layers by their height; with the bitrate where that does not tell them apart. */
function label(layers: ListedLayer[]): LayerOption[] {
  const heights = layers.map((layer) => layer.height);
  return layers.map((layer) => {
    const name = layer.height ? `${layer.height}p` : layer.encodingId;
    const alike = layer.height && heights.filter((height) => height === layer.height).length > 1;
    return { id: layer.encodingId, label: alike ? `${name} · ${bitrate(layer.bitrate)}` : name };
  });
}
