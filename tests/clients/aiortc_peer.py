"""A WHIP publisher and a WHEP viewer on aiortc, an independent WebRTC stack.

    aiortc_peer.py publish URL CODEC            until it is killed
    aiortc_peer.py watch URL KINDS FRAMES       until each kind has come so often

Reports are lines of JSON on standard output. The published picture is one that the
viewer can recognise after encoding: a light half above a dark one, with a bar that
moves from frame to frame; the sound is a tone.
"""

import array
import asyncio
import fractions
import json
import math
import sys
import time
import urllib.parse
import urllib.request

import aioice.ice
import av
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)

WIDTH, HEIGHT, FPS = 640, 360, 30
LIGHT, DARK, BAR = 200, 50, 128
RATE, SAMPLES = 48_000, 960

# aioice leaves loopback out, and a test machine may have nothing else.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]


def report(**entry):
    # One write: threads report too, and `print` writes the end of the line by itself.
    sys.stdout.write(json.dumps(entry) + "\n")
    sys.stdout.flush()


class Pace:
    """Sleeps until the n-th frame is due."""

    def __init__(self, interval):
        self.interval, self.count, self.start = interval, 0, None

    async def next(self):
        self.start = self.start or time.monotonic()
        due = self.start + self.count * self.interval
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        self.count += 1
        return self.count - 1


class Picture(MediaStreamTrack):
    kind = "video"

    def __init__(self):
        super().__init__()
        self.pace = Pace(1 / FPS)

    async def recv(self):
        number = await self.pace.next()
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
        bar = number * 8 % WIDTH
        for index, plane in enumerate(frame.planes):
            if index:
                plane.update(bytes([128]) * plane.buffer_size)
                continue
            rows = []
            for level in (LIGHT, DARK):
                row = bytearray([level]) * plane.line_size
                row[bar : bar + 8] = bytes([BAR]) * 8
                rows.append(bytes(row) * (HEIGHT // 2))
            plane.update(b"".join(rows))
        frame.pts, frame.time_base = number * 90_000 // FPS, fractions.Fraction(1, 90_000)
        return frame


class Tone(MediaStreamTrack):
    kind = "audio"

    def __init__(self):
        super().__init__()
        self.pace = Pace(SAMPLES / RATE)

    async def recv(self):
        number = await self.pace.next()
        first = number * SAMPLES
        angle = 2 * math.pi * 440 / RATE
        wave = (int(8000 * math.sin(angle * (first + n))) for n in range(SAMPLES))
        frame = av.AudioFrame(format="s16", layout="mono", samples=SAMPLES)
        frame.planes[0].update(array.array("h", wave).tobytes())
        frame.sample_rate, frame.pts = RATE, first
        frame.time_base = fractions.Fraction(1, RATE)
        return frame


def post(url, sdp):
    request = urllib.request.Request(
        url, sdp.encode(), {"Content-Type": "application/sdp"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return urllib.parse.urljoin(url, answer.headers["Location"]), answer.read().decode()


def delete(url):
    request = urllib.request.Request(url, method="DELETE")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.status


async def negotiate(peer, url):
    """Offers, takes the answer, waits for the connection; returns the session's URL."""
    connected = asyncio.get_running_loop().create_future()

    @peer.on("connectionstatechange")
    def changed():
        report(event="state", state=peer.connectionState)
        if peer.connectionState in ("connected", "failed", "closed") and not connected.done():
            connected.set_result(peer.connectionState)

    await peer.setLocalDescription(await peer.createOffer())
    resource, answer = await asyncio.to_thread(post, url, peer.localDescription.sdp)
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    state = await asyncio.wait_for(connected, 20)
    if state != "connected":
        raise SystemExit(f"connection {state}")
    return resource


async def publish(url, codec):
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    video = peer.addTransceiver(Picture(), direction="sendonly")
    peer.addTransceiver(Tone(), direction="sendonly")
    capabilities = RTCRtpSender.getCapabilities("video").codecs
    wanted = {f"video/{codec}".lower(), "video/rtx"}
    video.setCodecPreferences([c for c in capabilities if c.mimeType.lower() in wanted])
    await negotiate(peer, url)
    await asyncio.Event().wait()


def level(frame, row):
    """Mean luma of a row, without the bar."""
    plane = frame.planes[0]
    start = row * plane.line_size
    luma = sorted(bytes(plane)[start : start + frame.width])
    middle = luma[len(luma) // 8 : -len(luma) // 8]
    return sum(middle) / len(middle)


async def count(track, wanted, seen):
    """Takes decoded frames of a track; aiortc gives none that it cannot decode."""
    for number in range(wanted):
        frame = await asyncio.wait_for(track.recv(), 20)
        seen[track.kind] = number + 1
        if track.kind == "video":
            seen["width"], seen["height"] = frame.width, frame.height
            seen["upper"] = level(frame, frame.height // 4)
            seen["lower"] = level(frame, frame.height * 3 // 4)
        else:
            samples = array.array("h", bytes(frame.planes[0])[: frame.samples * 2])
            seen["loudest"] = max(seen.get("loudest", 0), max(map(abs, samples)))


async def watch(url, kinds, wanted):
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    # aiortc takes no answer that refuses a section: it offers what the table has.
    receivers = [peer.addTransceiver(kind, direction="recvonly").receiver for kind in kinds]
    resource = await negotiate(peer, url)
    tracks = [receiver.track for receiver in receivers]
    seen = {}
    try:
        await asyncio.wait_for(asyncio.gather(*(count(t, wanted, seen) for t in tracks)), 40)
    finally:
        report(event="seen", **seen)
    status = await asyncio.to_thread(delete, resource)
    report(event="deleted", status=status)
    await peer.close()


def main():
    role, url, *rest = sys.argv[1:]
    if role == "publish":
        asyncio.run(publish(url, rest[0]))
    else:
        asyncio.run(watch(url, rest[0].split(","), int(rest[1])))


if __name__ == "__main__":
    main()
