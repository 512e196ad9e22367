// Reads W3C webrtc-stats reports (inbound-rtp, outbound-rtp, candidate-pair) into
// the few numbers we show. Pure: a report and the one before it in, numbers out.

import { emptyStats, type PlaybackStats } from './playback.ts';

/** One entry of a report; members differ by `type`, so each is checked on use. */
export type StatsEntry = { type: string; timestamp: number } & Record<string, unknown>;
/** `RTCStatsReport`, or a `Map` in tests. */
export type StatsReport = { forEach(visit: (entry: StatsEntry) => void): void };

/** Milliseconds from the NTP epoch (1900) to the Unix epoch (1970). */
const NTP_TO_UNIX_MS = 2_208_988_800_000;

/** Totals of one report; rates are differences of two of these. */
export interface Counters {
  atMs: number;
  bytes: number;
  frames: number;
  jitterBufferSeconds: number;
  jitterBufferFrames: number;
}

const number = (value: unknown): number | null =>
  typeof value === 'number' && Number.isFinite(value) ? value : null;

/** All entries of one type. */
export function entriesOf(report: StatsReport, type: string): StatsEntry[] {
  const found: StatsEntry[] = [];
  report.forEach((entry) => {
    if (entry.type === type) found.push(entry);
  });
  return found;
}

/** The codec an RTP stream entry points to, as a short name: `H264`. */
export function codecOf(report: StatsReport, stream: StatsEntry | undefined): string | null {
  const codec = entriesOf(report, 'codec').find((entry) => entry['id'] === stream?.['codecId']);
  return typeof codec?.['mimeType'] === 'string' ? (codec['mimeType'].split('/')[1] ?? null) : null;
}

/** Round trip of the candidate pair in use, milliseconds. */
export function roundTripMs(report: StatsReport): number | null {
  const pair =
    entriesOf(report, 'candidate-pair').find((entry) => entry['nominated'] === true && entry['state'] === 'succeeded') ??
    entriesOf(report, 'candidate-pair').find((entry) => entry['state'] === 'succeeded');
  const seconds = number(pair?.['currentRoundTripTime']);
  return seconds === null ? null : seconds * 1000;
}

/** Change per second between two totals; null without two reports that follow each other. */
export function rate(now: number, before: number | undefined, elapsedMs: number): number | null {
  if (before === undefined || elapsedMs <= 0 || now < before) return null;
  return ((now - before) * 1000) / elapsedMs;
}

/**
 * Capture-to-playout delay from a playout or capture time on the sender's clock.
 * Browsers give it as milliseconds since 1900 (the specification) or 1970; the two
 * are 70 years apart, so its size tells which. Null if the clocks disagree too much to use.
 */
export function delayFromSenderClock(timestampMs: number | null, nowMs: number): number | null {
  if (timestampMs === null || timestampMs <= 0) return null;
  const unixMs = timestampMs > nowMs + NTP_TO_UNIX_MS / 2 ? timestampMs - NTP_TO_UNIX_MS : timestampMs;
  const delay = nowMs - unixMs;
  return Math.abs(delay) < 60_000 ? delay : null;
}

/** Reads a viewer's report. Give the returned counters back with the next one. */
export function readViewer(
  report: StatsReport,
  previous: Counters | null,
  nowUnixMs: number,
): { stats: PlaybackStats; counters: Counters } {
  const streams = entriesOf(report, 'inbound-rtp');
  const video = streams.find((entry) => entry['kind'] === 'video');
  const total = (key: string) => streams.reduce((sum, entry) => sum + (number(entry[key]) ?? 0), 0);

  const counters: Counters = {
    atMs: streams[0]?.timestamp ?? 0,
    bytes: total('bytesReceived'),
    frames: number(video?.['framesDecoded']) ?? 0,
    jitterBufferSeconds: number(video?.['jitterBufferDelay']) ?? 0,
    jitterBufferFrames: number(video?.['jitterBufferEmittedCount']) ?? 0,
  };
  const elapsedMs = counters.atMs - (previous?.atMs ?? counters.atMs);
  const bytesPerSecond = rate(counters.bytes, previous?.bytes, elapsedMs);
  const emitted = counters.jitterBufferFrames - (previous?.jitterBufferFrames ?? 0);
  const delayed = counters.jitterBufferSeconds - (previous?.jitterBufferSeconds ?? 0);

  const stats: PlaybackStats = {
    ...emptyStats('webrtc'),
    codec: codecOf(report, video),
    width: number(video?.['frameWidth']),
    height: number(video?.['frameHeight']),
    fps: rate(counters.frames, previous?.frames, elapsedMs) ?? number(video?.['framesPerSecond']),
    bitrate: bytesPerSecond === null ? null : bytesPerSecond * 8,
    rttMs: roundTripMs(report),
    jitterBufferMs: emitted > 0 ? (delayed / emitted) * 1000 : null,
    packetsLost: total('packetsLost'),
    nackCount: number(video?.['nackCount']),
    pliCount: number(video?.['pliCount']),
    framesDecoded: number(video?.['framesDecoded']),
    framesDropped: number(video?.['framesDropped']),
    freezeCount: number(video?.['freezeCount']),
    latencyMs: delayFromSenderClock(number(video?.['estimatedPlayoutTimestamp']), nowUnixMs),
  };
  return { stats, counters };
}

/** One layer that a publisher sends. */
export interface SentLayer {
  /** Simulcast id; empty without simulcast. */
  rid: string;
  width: number | null;
  height: number | null;
  fps: number | null;
  /** Bits per second; null until two reports are there. */
  bitrate: number | null;
  active: boolean;
}

/** One reading of a publication. */
export interface PublicationStats {
  codec: string | null;
  rttMs: number | null;
  /** Bits per second of all streams together. */
  bitrate: number | null;
  /** Why the encoder holds back: `none`, `cpu`, `bandwidth` or `other`. */
  limitation: string | null;
  /** Keyframes asked for by the gateway. */
  pliCount: number;
  nackCount: number;
  layers: SentLayer[];
}

/** Bytes sent so far, by stream id, and when that was. */
export type SentBytes = { atMs: number; byId: Map<unknown, number> };

/** Reads a publisher's report. Give the returned byte counts back with the next one. */
export function readPublisher(
  report: StatsReport,
  previous: SentBytes | null,
): { stats: PublicationStats; sent: SentBytes } {
  const streams = entriesOf(report, 'outbound-rtp');
  const videos = streams.filter((entry) => entry['kind'] === 'video');
  const bytes = (entry: StatsEntry) => number(entry['bytesSent']) ?? 0;
  const sent: SentBytes = {
    atMs: streams[0]?.timestamp ?? 0,
    byId: new Map(streams.map((entry) => [entry['id'], bytes(entry)])),
  };
  const elapsedMs = sent.atMs - (previous?.atMs ?? sent.atMs);
  const bitrateOf = (entry: StatsEntry) => {
    const perSecond = rate(bytes(entry), previous?.byId.get(entry['id']), elapsedMs);
    return perSecond === null ? null : perSecond * 8;
  };
  const layers = videos.map((entry) => ({
    rid: typeof entry['rid'] === 'string' ? entry['rid'] : '',
    width: number(entry['frameWidth']),
    height: number(entry['frameHeight']),
    fps: number(entry['framesPerSecond']),
    bitrate: bitrateOf(entry),
    active: entry['active'] !== false,
  }));
  const sum = (key: string) => videos.reduce((total, entry) => total + (number(entry[key]) ?? 0), 0);
  const limits = videos.map((entry) => entry['qualityLimitationReason']).filter((reason) => typeof reason === 'string');
  return {
    sent,
    stats: {
      codec: codecOf(report, videos[0]),
      rttMs: roundTripMs(report),
      bitrate: elapsedMs > 0 ? streams.reduce((total, entry) => total + (bitrateOf(entry) ?? 0), 0) : null,
      limitation: limits.find((reason) => reason !== 'none') ?? limits[0] ?? null,
      pliCount: sum('pliCount'),
      nackCount: sum('nackCount'),
      layers: layers.sort((a, b) => (b.width ?? 0) - (a.width ?? 0)),
    },
  };
}
