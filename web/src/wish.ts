// What WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep) share: an offer is
// POSTed, the answer comes back with the session's own address, and DELETE ends
// it. The gateway is ICE-lite and puts all its candidates into the answer, so
// the offer goes out at once, without gathering, and nothing is trickled.

import { readProblem } from './api.ts';
import { LAYER_RELATION, linkTarget } from './layers.ts';

/** A session at the gateway that has been answered. */
export interface WishSession {
  /** Address of the session, for DELETE. */
  readonly url: string;
  /** Version of the ICE session, for a conditional PATCH. */
  readonly etag: string | null;
  /** Where its layers are chosen; null when there is no choice. */
  readonly layersUrl: string | null;
  /** Ends the session at the gateway; also works while the page is closing. */
  end(): void;
}

/**
 * Offers `peer` to `endpoint` and applies the answer.
 * Rejects with `GatewayError`, with `TypeError` when nobody answers, or with the signal's reason.
 */
export async function negotiate(
  peer: RTCPeerConnection,
  endpoint: string,
  token: string | null,
  signal: AbortSignal,
): Promise<WishSession> {
  await peer.setLocalDescription();
  const headers: Record<string, string> = { 'Content-Type': 'application/sdp' };
  if (token) headers['Authorization'] = `Bearer ${token}`;
  const response = await fetch(endpoint, {
    method: 'POST',
    headers,
    body: peer.localDescription?.sdp ?? '',
    signal,
  });
  if (response.status !== 201) throw await readProblem(response);

  const location = response.headers.get('location');
  const session = {
    url: location ? new URL(location, response.url).href : '',
    etag: response.headers.get('etag'),
    layersUrl: linkTarget(response.headers.get('link'), LAYER_RELATION, response.url),
    end: () => endSession(session.url, token),
  };
  try {
    const sdp = await response.text();
    signal.throwIfAborted();
    await peer.setRemoteDescription({ type: 'answer', sdp });
  } catch (error) {
    session.end();
    throw error;
  }
  return session;
}

function endSession(url: string, token: string | null): void {
  if (!url) return;
  // `keepalive` lets the request outlive the page. A session that is gone
  // already, or a gateway that is away, needs no ending: errors do not matter.
  fetch(url, {
    method: 'DELETE',
    keepalive: true,
    ...(token ? { headers: { Authorization: `Bearer ${token}` } } : {}),
  }).catch(() => undefined);
}
