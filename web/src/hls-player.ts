// LL-HLS viewer on hls.js (draft-pantos-hls-rfc8216bis). hls.js comes before the
// browser's own HLS wherever Media Source Extensions exist: Chromium answers
// "maybe" for HLS but plays it late. It is loaded only when it is needed.

import type Hls from 'hls.js';
import type { ErrorData, HlsConfig, LoaderResponse, MediaFragment, RetryConfig } from 'hls.js';

import { GatewayError, parseRetryAfter, readProblem } from './api.ts';
import { deferred } from './deferred.ts';
import { rateTowards } from './hold-back.ts';
import { HlsLayers } from './hls-layers.ts';
import type { LayerChoice } from './layers.ts';
import { TransportError, emptyStats, firstPicture, type Playback, type PlaybackStats } from './playback.ts';
import { RateMeter } from './rate-meter.ts';

/** From the first request to the first picture. */
const PICTURE_WITHIN_MS = 10_000;
/** A playhead that stands still this long means that the stream is lost. */
const STALL_MS = 8_000;

/** The gateway answers these while a part is not there yet, or is not there any more: ask again. */
const PASSING_STATUS = new Set([400, 404, 503]);

/** Opens the stream and resolves when the first picture is on the screen. */
export async function openHls(table: string, video: HTMLVideoElement, signal: AbortSignal): Promise<Playback> {
  const url = `/hls/${table}/index.m3u8`;
  const { default: HlsJs } = await import('hls.js').catch(onMissingChunk);
  signal.throwIfAborted();
  video.srcObject = null;
  const playback = HlsJs.isSupported()
    ? new HlsJsPlayback(new HlsJs(CONFIG), HlsJs, url, video)
    : new NativePlayback(url, video);
  const broken = playback.ended.then((reason) => Promise.reject(reason));
  // Lost races must not count as unhandled.
  broken.catch(() => undefined);
  try {
    await Promise.race([firstPicture(video, PICTURE_WITHIN_MS, signal), broken]);
    return playback;
  } catch (error) {
    playback.close();
    throw error;
  }
}

/** A gateway of another version has other chunks: the page asks for the new ones, once. */
function onMissingChunk(error: unknown): never {
  const RELOADED_KEY = 'railbird.reloaded';
  try {
    const last = Number(sessionStorage.getItem(RELOADED_KEY) ?? 0);
    if (navigator.onLine && Date.now() - last > 60_000) {
      sessionStorage.setItem(RELOADED_KEY, String(Date.now()));
      location.reload();
    }
  } catch {
    // Without storage a reload could not be told from the one before it.
  }
  throw error;
}

function retry(times: number): RetryConfig {
  return {
    maxNumRetry: times,
    retryDelayMs: 250,
    maxRetryDelayMs: 1_000,
    backoff: 'exponential',
    shouldRetry: (config, tries, _timeout, response?: LoaderResponse, byDefault?: boolean) =>
      tries < (config?.maxNumRetry ?? 0) && (byDefault === true || PASSING_STATUS.has(response?.code ?? 0)),
  };
}

function policy(times: number) {
  const attempts = retry(times);
  return {
    default: { maxTimeToFirstByteMs: 10_000, maxLoadTimeMs: 20_000, timeoutRetry: attempts, errorRetry: attempts },
  };
}

const CONFIG: Partial<HlsConfig> = {
  lowLatencyMode: true,
  // `rateTowards` catches up instead.
  maxLiveSyncPlaybackRate: 1,
  // Every stall sets the target further back, for good: by a part, not by hls.js's second.
  liveSyncOnStallIncrease: 0.25,
  backBufferLength: 10,
  // No retries for the first playlist: whether the table is live is the player's question.
  manifestLoadPolicy: policy(0),
  playlistLoadPolicy: policy(4),
  fragLoadPolicy: policy(6),
};

/** How often the speed is set anew. */
const PACE_EVERY_MS = 250;

/** What both ways of playing HLS share: element events, the stall watch, numbers of the element. */
abstract class ElementPlayback implements Playback {
  readonly transport = 'llhls';
  abstract readonly layers: LayerChoice | null;
  readonly ended: Promise<Error>;
  protected readonly stopped = new AbortController();
  readonly #fps = new RateMeter();
  readonly #watch: ReturnType<typeof setInterval>;
  #stalls = 0;
  #playheadMovedAtMs = performance.now();
  #playhead = -1;

  constructor(
    protected readonly video: HTMLVideoElement,
    protected readonly lost: (reason: Error) => void,
    ended: Promise<Error>,
  ) {
    this.ended = ended;
    const on = { signal: this.stopped.signal };
    let playing = false;
    video.addEventListener('playing', () => (playing = true), on);
    video.addEventListener('waiting', () => playing && this.#onStall(), on);
    video.addEventListener('ended', () => lost(new TransportError('lost', 'the stream has ended')), on);
    this.#watch = setInterval(() => this.#lookAtPlayhead(), 500);
  }

  protected abstract fill(stats: PlaybackStats): void;
  /** The picture stood still because nothing was in store. */
  protected abstract stalled(): void;

  async stats(): Promise<PlaybackStats> {
    const { video } = this;
    const quality = video.getVideoPlaybackQuality();
    const bufferedTo = video.buffered.length ? video.buffered.end(video.buffered.length - 1) : null;
    const stats: PlaybackStats = {
      ...emptyStats('llhls'),
      width: video.videoWidth || null,
      height: video.videoHeight || null,
      fps: this.#fps.perSecond(),
      bufferMs: bufferedTo === null ? null : (bufferedTo - video.currentTime) * 1000,
      framesDecoded: quality.totalVideoFrames,
      framesDropped: quality.droppedVideoFrames,
      freezeCount: this.#stalls,
    };
    this.fill(stats);
    return stats;
  }

  close(): void {
    clearInterval(this.#watch);
    this.stopped.abort();
  }

  #onStall(): void {
    this.#stalls++;
    this.stalled();
  }

  #lookAtPlayhead(): void {
    const now = performance.now();
    this.#fps.total(this.video.getVideoPlaybackQuality().totalVideoFrames, now);
    // A viewer's pause is no stall; on `play` the clock starts anew.
    if (this.video.currentTime !== this.#playhead || this.video.paused) this.#playheadMovedAtMs = now;
    this.#playhead = this.video.currentTime;
    if (now - this.#playheadMovedAtMs > STALL_MS) this.lost(new TransportError('lost', 'the picture stands still'));
  }
}

class HlsJsPlayback extends ElementPlayback {
  override readonly layers: HlsLayers;
  readonly #bytes = new RateMeter();
  readonly #hls: Hls;
  readonly #pace: ReturnType<typeof setInterval>;
  /** A picture is on its way. */
  #isLoading = false;
  #recoveredAtMs = -Infinity;

  constructor(hls: Hls, HlsJs: typeof Hls, url: string, video: HTMLVideoElement) {
    const { promise, resolve } = deferred<Error>();
    super(video, resolve, promise);
    this.#hls = hls;
    this.layers = new HlsLayers(hls);
    this.#pace = setInterval(() => this.#keepDistance(), PACE_EVERY_MS);
    hls.on(HlsJs.Events.ERROR, (_event, data) => {
      if (data.fatal) this.#onFatal(data, HlsJs);
    });
    hls.on(HlsJs.Events.FRAG_BUFFERED, (_event, { frag, part }) => {
      this.#bytes.add((part ?? frag).stats.loaded);
      if (frag.type !== 'main') return;
      this.#isLoading = false;
      this.layers.buffered(frag as MediaFragment, part, performance.now());
    });
    hls.on(HlsJs.Events.FRAG_LOADING, (_event, { frag }) => {
      if (frag.type === 'main') this.#isLoading = true;
    });
    hls.on(HlsJs.Events.LEVEL_LOADED, (_event, { details }) => {
      // Only the remains of a stream: nobody wants to see yesterday's last round.
      if (!details.live && video.readyState === 0) this.lost(notLive(null));
    });
    hls.on(HlsJs.Events.MANIFEST_PARSED, () => {
      this.layers.begin();
      video.play().catch(() => undefined);
    });
    hls.loadSource(url);
    hls.attachMedia(video);
  }

  protected override fill(stats: PlaybackStats): void {
    const level = this.#hls.levels[this.#hls.currentLevel];
    const bytesPerSecond = this.#bytes.perSecond();
    stats.codec = level?.videoCodec ?? null;
    stats.bitrate = bytesPerSecond === null ? null : bytesPerSecond * 8;
    stats.latencyMs = this.#hls.playingDate ? Date.now() - this.#hls.playingDate.getTime() : null;
  }

  /** Without media on its way the table pauses; the path may be good. */
  protected override stalled(): void {
    if (this.#isLoading) this.layers.stalled(performance.now());
  }

  override close(): void {
    super.close();
    clearInterval(this.#pace);
    this.video.playbackRate = 1;
    this.#hls.destroy();
  }

  #keepDistance(): void {
    const { video } = this;
    const bufferedTo = video.buffered.length ? video.buffered.end(video.buffered.length - 1) : 0;
    const rate = rateTowards(this.#hls.latency, this.#hls.targetLatency ?? Number.NaN, bufferedTo - video.currentTime);
    if (video.playbackRate !== rate) video.playbackRate = rate;
  }

  #onFatal(data: ErrorData, HlsJs: typeof Hls): void {
    const now = performance.now();
    if (data.type === HlsJs.ErrorTypes.MEDIA_ERROR && now - this.#recoveredAtMs > 5_000) {
      this.#recoveredAtMs = now;
      this.#hls.recoverMediaError();
      return;
    }
    const status = data.response?.code ?? 0;
    const silent = data.type === HlsJs.ErrorTypes.NETWORK_ERROR && status === 0;
    if (status === 404) this.lost(notLive(retryAfterOf(data)));
    else if (status >= 400) this.lost(new GatewayError(status, '', `HTTP ${status}`, data.details, retryAfterOf(data)));
    // As `fetch` does when nobody answers.
    else if (silent) this.lost(new TypeError(data.details));
    else this.lost(new TransportError('lost', data.details));
  }
}

/** Safari on iPhones without Media Source Extensions. */
class NativePlayback extends ElementPlayback {
  /** The browser chooses. */
  override readonly layers = null;

  constructor(url: string, video: HTMLVideoElement) {
    const { promise, resolve } = deferred<Error>();
    super(video, resolve, promise);
    // The element does not tell the status of its requests, so one is made before it.
    fetch(url, { signal: this.stopped.signal })
      .then(async (response) => {
        if (!response.ok) throw await readProblem(response);
        video.src = url;
        video.play().catch(() => undefined);
      })
      .catch(resolve);
    const failed = () => resolve(new TransportError('lost', video.error?.message ?? 'cannot be played'));
    video.addEventListener('error', failed, { signal: this.stopped.signal });
  }

  override close(): void {
    super.close();
    // Without a source the element stops downloading.
    this.video.removeAttribute('src');
    this.video.load();
  }

  /** The browser chooses. */
  protected override stalled(): void {}

  protected override fill(stats: PlaybackStats): void {
    // HTMLMediaElement.getStartDate: the wall clock time of currentTime 0, Safari only.
    const start = (this.video as { getStartDate?(): Date }).getStartDate?.().getTime() ?? NaN;
    stats.latencyMs = Number.isFinite(start) ? Date.now() - start - this.video.currentTime * 1000 : null;
  }
}

function notLive(retryAfterMs: number | null): GatewayError {
  return new GatewayError(404, 'table-not-live', 'Table is not live', '', retryAfterMs);
}

function retryAfterOf(data: ErrorData): number | null {
  const request: unknown = data.networkDetails;
  return request instanceof XMLHttpRequest ? parseRetryAfter(request.getResponseHeader('retry-after')) : null;
}
