// The gateway's JSON: the list of tables, and errors as problem documents
// (RFC 9457). Everything from the network is checked before it is believed.

/** One simulcast layer of a track, or its only one (`rid` is then empty). */
export interface Layer {
  rid: string;
  /** Pixels; absent for audio. */
  width?: number;
  height?: number;
  /** Frames per second. */
  fps?: number;
  /** Bits per second, as measured at the gateway's input. */
  bitrate: number;
}

/** One track of a table. */
export interface Track {
  kind: 'video' | 'audio';
  codec: string;
  layers: Layer[];
}

/** A table as the gateway lists it. */
export interface Table {
  table: string;
  live: boolean;
  /** When the stream began, RFC 3339. */
  startedAt: string;
  viewers: { webrtc: number; llhls: number };
  tracks: Track[];
}

/** An answer of the gateway that says why it could not do what was asked. */
export class GatewayError extends Error {
  override readonly name = 'GatewayError';

  constructor(
    /** HTTP status. */
    readonly status: number,
    /** Last part of the problem's `type`, such as `table-not-live`. */
    readonly kind: string,
    readonly title: string,
    readonly detail: string,
    /** When the gateway would like to be asked again, in milliseconds. */
    readonly retryAfterMs: number | null,
  ) {
    super(detail ? `${title}: ${detail}` : title);
  }
}

/** Parses `Retry-After` (RFC 9110 §10.2.3): seconds or a date. Bounded to a minute. */
export function parseRetryAfter(value: string | null, now = Date.now()): number | null {
  if (value === null || value.trim() === '') return null;
  const ms = /^\s*\d+\s*$/.test(value) ? Number(value) * 1000 : Date.parse(value) - now;
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), 60_000) : null;
}

/** Reads the reason out of an error answer, whether or not it is a problem document. */
export async function readProblem(response: Response): Promise<GatewayError> {
  let body: Record<string, unknown> = {};
  try {
    const parsed: unknown = await response.json();
    if (typeof parsed === 'object' && parsed !== null) body = parsed as Record<string, unknown>;
  } catch {
    // Not JSON: an intermediary answered. The status has to be enough.
  }
  const text = (key: string) => (typeof body[key] === 'string' ? body[key] : '');
  return new GatewayError(
    response.status,
    text('type').split(':').at(-1) ?? '',
    text('title') || response.statusText || `HTTP ${response.status}`,
    text('detail'),
    parseRetryAfter(response.headers.get('retry-after')),
  );
}

/** `GET /api/tables`. Rejects with `GatewayError`, or `TypeError` when nobody answers. */
export async function fetchTables(signal: AbortSignal): Promise<Table[]> {
  const response = await fetch('/api/tables', { signal, cache: 'no-store' });
  if (!response.ok) throw await readProblem(response);
  const body: unknown = await response.json();
  if (!Array.isArray(body)) throw new TypeError('the list of tables is not a list');
  return body.filter(isTable);
}

function isTable(value: unknown): value is Table {
  const table = value as Partial<Table> | null;
  return (
    typeof table?.table === 'string' &&
    Array.isArray(table.tracks) &&
    table.tracks.every((track) => Array.isArray(track?.layers)) &&
    typeof table.viewers === 'object'
  );
}

/** The best layer of a table's first track of a kind, and its codec. */
export function bestLayer(table: Table, kind: Track['kind']): { codec: string; layer: Layer | null } | null {
  const track = table.tracks.find((candidate) => candidate.kind === kind);
  if (!track) return null;
  const pixels = (layer: Layer) => (layer.width ?? 0) * (layer.height ?? 0);
  const layer = track.layers.reduce<Layer | null>(
    (best, next) => (best === null || pixels(next) > pixels(best) ? next : best),
    null,
  );
  return { codec: track.codec, layer };
}

/** What the gateway accepts as a table's name. */
const TABLE_NAME = /^[A-Za-z0-9_-]{1,64}$/;

/** Whether the gateway would accept this name. */
export function isTableName(name: string): boolean {
  return TABLE_NAME.test(name);
}

/** The table in a path such as `/play/roulette-7`, or null. */
export function tableFromPath(pathname: string): string | null {
  const name = pathname.split('/')[2] ?? '';
  return isTableName(name) ? name : null;
}
