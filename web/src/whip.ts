// WebRTC publisher by WHIP (RFC 9725). One object is one session; what to do
// when it ends is the publisher's business.

import { deferred } from './deferred.ts';
import { TransportError } from './playback.ts';
import { encodings, preferCodec, shareBitrate, type EncodingChoice } from './encodings.ts';
import { readPublisher, type PublicationStats, type SentBytes, type StatsReport } from './rtc-stats.ts';
import { negotiate, type WishSession } from './wish.ts';

const CONNECT_WITHIN_MS = 5_000;
/** `disconnected` may heal by itself; after this long it counts as lost. */
const HEAL_WITHIN_MS = 3_000;

/** Publishes `stream` and resolves once the connection to the gateway is up. */
export async function openWhip(
  table: string,
  token: string,
  stream: MediaStream,
  choice: EncodingChoice,
  signal: AbortSignal,
): Promise<Publication> {
  const peer = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  const [video] = stream.getVideoTracks();
  const [audio] = stream.getAudioTracks();
  let session: WishSession | null = null;
  try {
    if (video) {
      const transceiver = peer.addTransceiver(video, {
        direction: 'sendonly',
        streams: [stream],
        sendEncodings: encodings(choice),
      });
      const codecs = RTCRtpSender.getCapabilities('video')?.codecs ?? [];
      transceiver.setCodecPreferences?.(preferCodec(codecs, choice.codec));
    }
    if (audio) peer.addTransceiver(audio, { direction: 'sendonly', streams: [stream] });
    session = await negotiate(peer, `/whip/${table}`, token, signal);
    const publication = new Publication(peer, session);
    await publication.connected(signal);
    await publication.keepFrameRate();
    return publication;
  } catch (error) {
    peer.close();
    session?.end();
    throw error;
  }
}

/** A table on the air. */
export class Publication {
  /** Resolves, never rejects, with the reason once the publication is over. */
  readonly ended: Promise<Error>;
  readonly #peer: RTCPeerConnection;
  readonly #session: WishSession;
  #sent: SentBytes | null = null;
  #healing: ReturnType<typeof setTimeout> | undefined;

  constructor(peer: RTCPeerConnection, session: WishSession) {
    this.#peer = peer;
    this.#session = session;
    const { promise, resolve } = deferred<Error>();
    this.ended = promise;
    const lost = () => resolve(new TransportError('lost', 'the connection to the gateway was lost'));
    peer.addEventListener('connectionstatechange', () => {
      clearTimeout(this.#healing);
      if (['failed', 'closed'].includes(peer.connectionState)) lost();
      if (peer.connectionState === 'disconnected') this.#healing = setTimeout(lost, HEAL_WITHIN_MS);
    });
    const dtls = peer.getSenders()[0]?.transport;
    dtls?.addEventListener('statechange', () => dtls.state === 'closed' && lost());
  }

  /** Resolves when media can flow; rejects when it will not, or not soon enough. */
  async connected(signal: AbortSignal): Promise<void> {
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(CONNECT_WITHIN_MS)]);
    while (this.#peer.connectionState !== 'connected') {
      if (this.#peer.connectionState === 'failed' || (deadline.aborted && !signal.aborted)) {
        throw new TransportError('no-connection', 'WebRTC does not get through to the gateway');
      }
      signal.throwIfAborted();
      await new Promise((resolve) => {
        this.#peer.addEventListener('connectionstatechange', resolve, { once: true });
        deadline.addEventListener('abort', resolve, { once: true });
      });
    }
  }

  /** Changes the bitrate of all layers together, without a new negotiation. */
  async setBitrate(bitrate: number): Promise<void> {
    await this.#update((parameters) => {
      parameters.encodings = shareBitrate(parameters.encodings, bitrate);
    });
  }

  /** A coarse picture on time is worth more at a table than a fine one that is late. */
  async keepFrameRate(): Promise<void> {
    await this.#update((parameters) => {
      parameters.degradationPreference = 'maintain-framerate';
    });
  }

  async stats(): Promise<PublicationStats> {
    const report = (await this.#peer.getStats()) as unknown as StatsReport;
    const { stats, sent } = readPublisher(report, this.#sent);
    this.#sent = sent;
    return stats;
  }

  close(): void {
    clearTimeout(this.#healing);
    this.#peer.close();
    this.#session.end();
  }

  async #update(change: (parameters: RTCRtpSendParameters & { degradationPreference?: string }) => void): Promise<void> {
    const sender = this.#peer.getSenders().find(({ track }) => track?.kind === 'video');
    if (!sender) return;
    const parameters = sender.getParameters();
    change(parameters);
    // Some browsers refuse members they do not know; the stream goes on as it was.
    await sender.setParameters(parameters).catch(() => undefined);
  }
}
