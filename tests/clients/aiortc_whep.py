"""A WHEP server on aiortc, an independent WebRTC stack: every viewer gets a picture.

    aiortc_whep.py CODEC            until it is killed

The first line of JSON on standard output names the port. aiortc is a full ICE agent
with DTLS in either role, SHA1_80 only, no header extensions worth the name, resends by
RTX: all of it unlike the gateway.
"""

import asyncio
import contextlib
import http.server
import sys
import threading

from aiortc import (
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)

import aiortc_peer

LIMIT = 30


class Sessions:
    """The peers by number; all work on them is the event loop's."""

    def __init__(self, loop, codec):
        self.loop, self.codec, self.peers, self.count = loop, codec, {}, 0

    async def open(self, offer):
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        wanted = {f"video/{self.codec}".lower(), "video/rtx"}
        for transceiver in peer.getTransceivers():
            video = transceiver.kind == "video"
            track = aiortc_peer.Picture() if video else aiortc_peer.Tone()
            transceiver.sender.replaceTrack(track)
            transceiver.direction = "sendonly"
            if video:
                capabilities = RTCRtpSender.getCapabilities("video").codecs
                chosen = [c for c in capabilities if c.mimeType.lower() in wanted]
                transceiver.setCodecPreferences(chosen)
        await peer.setLocalDescription(await peer.createAnswer())
        self.count += 1
        self.peers[self.count] = peer
        return self.count, peer.localDescription.sdp

    async def close(self, number):
        peer = self.peers.pop(number, None)
        if peer is not None:
            await peer.close()
        return peer is not None

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(LIMIT)


def handler(sessions):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status, body=b"", **headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            offer = self.rfile.read(int(self.headers["Content-Length"])).decode()
            number, sdp = sessions.run(sessions.open(offer))
            # A relative Location, as RFC 9110 allows.
            self.answer(
                201, sdp.encode(), Location=f"{self.path}/{number}", Content_Type="application/sdp"
            )

        def do_DELETE(self):
            known = sessions.run(sessions.close(int(self.path.rsplit("/", 1)[1])))
            aiortc_peer.report(event="deleted", open=len(sessions.peers))
            self.answer(200 if known else 404)

        def log_message(self, *_):
            pass

    return Handler


async def main(codec):
    sessions = Sessions(asyncio.get_running_loop(), codec)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(sessions))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    aiortc_peer.report(event="ready", port=server.server_port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1]))
