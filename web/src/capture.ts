// Camera, screen and microphone (mediacapture-main, mediacapture-screen-share).

export interface CaptureChoice {
  source: 'camera' | 'screen';
  /** Device ids; empty: the browser's choice. */
  camera: string;
  microphone: string;
  audio: boolean;
  /** Lines of the picture; the width follows as 16:9. */
  height: number;
  fps: number;
}

/** Opens the chosen devices. Rejects with a `DOMException`; see `captureErrorText`. */
export async function capture(choice: CaptureChoice): Promise<MediaStream> {
  if (!navigator.mediaDevices) throw new DOMException('', 'SecurityError');
  const size = {
    width: { ideal: Math.round((choice.height * 16) / 9) },
    height: { ideal: choice.height },
    frameRate: { ideal: choice.fps, max: choice.fps },
  };
  const microphone = choice.audio && { ...(choice.microphone ? { deviceId: { exact: choice.microphone } } : {}) };
  const stream =
    choice.source === 'camera'
      ? await navigator.mediaDevices.getUserMedia({
          video: { ...size, ...(choice.camera ? { deviceId: { exact: choice.camera } } : {}) },
          audio: microphone,
        })
      : await captureScreen(size, microphone);
  for (const track of stream.getVideoTracks()) {
    track.contentHint = choice.source === 'camera' ? 'motion' : 'detail';
  }
  return stream;
}

async function captureScreen(
  size: MediaTrackConstraints,
  microphone: MediaTrackConstraints | false,
): Promise<MediaStream> {
  const stream = await navigator.mediaDevices.getDisplayMedia({ video: size });
  if (!microphone) return stream;
  try {
    const voice = await navigator.mediaDevices.getUserMedia({ audio: microphone });
    voice.getAudioTracks().forEach((track) => stream.addTrack(track));
    return stream;
  } catch (error) {
    release(stream);
    throw error;
  }
}

/** Switches the devices off. */
export function release(stream: MediaStream | null): void {
  stream?.getTracks().forEach((track) => track.stop());
}

/** Cameras and microphones; their labels are empty until permission was given once. */
export async function devices(): Promise<{ cameras: MediaDeviceInfo[]; microphones: MediaDeviceInfo[] }> {
  const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  const ofKind = (kind: MediaDeviceKind) => all.filter((device) => device.kind === kind && device.deviceId !== '');
  return { cameras: ofKind('videoinput'), microphones: ofKind('audioinput') };
}

/** Says in plain words why there is no picture to send. */
export function captureErrorText(error: unknown): string {
  switch (error instanceof DOMException ? error.name : '') {
    case 'NotAllowedError':
      return 'The browser was not allowed to use the camera, screen or microphone.';
    case 'NotFoundError':
      return 'No such camera or microphone is connected.';
    case 'NotReadableError':
      return 'The camera or microphone is in use by another program.';
    case 'OverconstrainedError':
      return 'The device cannot do what was asked of it; choose another size or device.';
    case 'SecurityError':
      return 'Browsers give out cameras only to pages from https:// or localhost.';
    default:
      return error instanceof Error ? error.message : String(error);
  }
}
