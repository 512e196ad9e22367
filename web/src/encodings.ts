// What a publisher asks its encoder for: layers, their share of the bitrate, and
// the order of codecs in the offer. Pure, so that it can be tested without a browser.

/** Layers from the smallest to the largest, as `sendEncodings` wants them (webrtc-pc §5.4). */
const LAYERS = [
  { rid: 'q', scale: 4, share: 0.08 },
  { rid: 'h', scale: 2, share: 0.25 },
  { rid: 'f', scale: 1, share: 0.67 },
] as const;

export interface EncodingChoice {
  simulcast: boolean;
  /** Of all layers together, bits per second. */
  bitrate: number;
  /** Frames per second. */
  fps: number;
  /** Preferred codec, such as `H264`. */
  codec: string;
}

/** A share of the bitrate per layer; one layer gets it all. */
export function encodings(choice: EncodingChoice): RTCRtpEncodingParameters[] {
  // VP9 and AV1 default to spatial layers within one stream; plain layers need saying.
  const plain = choice.codec === 'VP9' || choice.codec === 'AV1' ? { scalabilityMode: 'L1T1' } : {};
  const common = { maxFramerate: choice.fps, ...plain };
  if (!choice.simulcast) return [{ maxBitrate: choice.bitrate, ...common }];
  return LAYERS.map(({ rid, scale, share }) => ({
    rid,
    scaleResolutionDownBy: scale,
    maxBitrate: Math.round(choice.bitrate * share),
    ...common,
  }));
}

/** Splits a new total over running encodings the same way. */
export function shareBitrate(running: RTCRtpEncodingParameters[], bitrate: number): RTCRtpEncodingParameters[] {
  return running.map((encoding) => {
    const share = LAYERS.find(({ rid }) => rid === encoding.rid)?.share ?? 1;
    return { ...encoding, maxBitrate: Math.round(bitrate * share) };
  });
}

/** The browser's codecs with the preferred one first; the rest, and RTX and FEC, keep their order. */
export function preferCodec<T extends { mimeType: string; sdpFmtpLine?: string }>(codecs: T[], name: string): T[] {
  const wanted = `video/${name}`.toLowerCase();
  const rank = (codec: T) => {
    if (codec.mimeType.toLowerCase() !== wanted) return 2;
    // H264 packetization-mode 0 cannot fragment: only when there is nothing else.
    return codec.sdpFmtpLine?.includes('packetization-mode=0') ? 1 : 0;
  };
  return codecs.toSorted((a, b) => rank(a) - rank(b));
}
