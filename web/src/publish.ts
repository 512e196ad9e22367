// The publisher page: wires devices and settings to the publisher.

import { isTableName, tableFromPath } from './api.ts';
import { capture, captureErrorText, devices, release, type CaptureChoice } from './capture.ts';
import { byId, copyButton, make, setText } from './dom.ts';
import type { EncodingChoice } from './encodings.ts';
import { UNKNOWN, bitrate, count, frameRate, milliseconds, resolution } from './format.ts';
import { Publisher, type PublisherState } from './publisher.ts';
import type { PublicationStats, SentLayer } from './rtc-stats.ts';

const STATE_TEXT: Record<PublisherState, string> = {
  idle: 'Off air',
  connecting: 'Connecting…',
  live: 'On air',
  reconnecting: 'Connection lost – reconnecting',
  failed: 'Could not publish',
};

const LIMITATION_TEXT: Record<string, string> = {
  none: 'none',
  cpu: 'this computer is too slow',
  bandwidth: 'the uplink is too slow',
  other: 'other',
};

const STATS_MS = 1_000;

const publisher = new Publisher();
const form = byId<HTMLFormElement>('settings');
const preview = byId<HTMLVideoElement>('preview');
const field = <T extends HTMLInputElement | HTMLSelectElement>(id: string) => byId<T>(id);

let stream: MediaStream | null = null;
/** Counts previews asked for and given up: an answer to an older one is not wanted any more. */
let generation = 0;
/** The choice in use; its bitrate may change while on the air. */
let choice: EncodingChoice | null = null;

function captureChoice(): CaptureChoice {
  return {
    source: new FormData(form).get('source') === 'screen' ? 'screen' : 'camera',
    camera: field('camera').value,
    microphone: field('microphone').value,
    audio: field<HTMLInputElement>('audio').checked,
    height: Number(field('height').value),
    fps: Number(field('fps').value),
  };
}

function encodingChoice(): EncodingChoice {
  return {
    simulcast: field<HTMLInputElement>('simulcast').checked,
    bitrate: Number(field('bitrate').value) * 1000,
    fps: Number(field('fps').value),
    codec: field('codec').value,
  };
}

const tableName = () => field('table').value.trim();

async function openPreview(): Promise<boolean> {
  const mine = ++generation;
  release(stream);
  stream = null;
  setText(byId('error'), '');
  try {
    const captured = await capture(captureChoice());
    if (mine !== generation) {
      release(captured);
      return false;
    }
    stream = captured;
  } catch (error) {
    if (mine !== generation) return false;
    setText(byId('error'), captureErrorText(error));
  }
  preview.srcObject = stream;
  byId('no-preview').hidden = stream !== null;
  // "Stop sharing" in the browser's own bar ends the publication as well.
  stream?.getVideoTracks()[0]?.addEventListener('ended', stop);
  await listDevices();
  return mine === generation && stream !== null;
}

async function start(): Promise<void> {
  const go = byId<HTMLButtonElement>('go');
  go.disabled = true;
  const ready = stream?.active || (await openPreview());
  go.disabled = false;
  if (!ready || !stream) return;
  choice = encodingChoice();
  publisher.start(tableName(), stream, choice);
}

function stop(): void {
  generation++;
  publisher.stop();
  release(stream);
  stream = null;
  preview.srcObject = null;
  byId('no-preview').hidden = false;
}

/** Fills the device lists, keeping the choice where the device is still there. */
async function listDevices(): Promise<void> {
  const { cameras, microphones } = await devices();
  const lists: [string, string, MediaDeviceInfo[]][] = [
    ['camera', 'Camera', cameras],
    ['microphone', 'Microphone', microphones],
  ];
  for (const [id, name, found] of lists) {
    const select = field<HTMLSelectElement>(id);
    const chosen = select.value;
    const options = found.map((device, index) =>
      make('option', { value: device.deviceId }, device.label || `${name} ${index + 1}`),
    );
    select.replaceChildren(make('option', { value: '' }, 'Browser default'), ...options);
    select.value = found.some((device) => device.deviceId === chosen) ? chosen : '';
  }
}

function showName(): void {
  const name = tableName();
  const valid = isTableName(name);
  const path = valid ? `/play/${name}` : '';
  const link = byId<HTMLAnchorElement>('play-link');
  setText(link, valid ? `${location.origin}${path}` : UNKNOWN);
  if (valid) link.href = path;
  else link.removeAttribute('href');
  byId<HTMLButtonElement>('copy').disabled = !valid;
  document.title = valid ? `Publish ${name} · Railbird` : 'Publish · Railbird';
  history.replaceState(null, '', valid ? `/publish/${name}` : '/publish');
}

function showState(): void {
  const { state, detail } = publisher;
  const running = state !== 'idle' && state !== 'failed';
  byId('stage').dataset['state'] = state;
  setText(byId('state'), STATE_TEXT[state]);
  setText(byId('error'), detail);
  setText(byId('go'), running ? 'Stop' : 'Go live');
  byId('go').classList.toggle('stop', running);
  byId<HTMLButtonElement>('open-preview').hidden = running;
  byId<HTMLFieldSetElement>('fixed').disabled = running;
  byId('sent').hidden = state !== 'live';
}

function showBitrate(): void {
  const value = Number(field('bitrate').value) * 1000;
  setText(byId('bitrate-value'), bitrate(value));
  field('bitrate').setAttribute('aria-valuetext', bitrate(value));
  if (choice) choice.bitrate = value;
  void publisher.setBitrate(value);
}

function showSource(): void {
  byId('camera-row').hidden = captureChoice().source === 'screen';
  byId('microphone-row').hidden = !captureChoice().audio;
}

function layerRow(layer: SentLayer): HTMLElement {
  const cells = [layer.rid || 'single', resolution(layer.width, layer.height), frameRate(layer.fps), bitrate(layer.bitrate)];
  return make('tr', layer.active ? {} : { class: 'muted' }, ...cells.map((text) => make('td', {}, text)));
}

function showStats(stats: PublicationStats): void {
  setText(byId('sent-bitrate'), bitrate(stats.bitrate));
  setText(byId('sent-codec'), stats.codec ?? UNKNOWN);
  setText(byId('sent-rtt'), milliseconds(stats.rttMs));
  setText(byId('sent-limit'), LIMITATION_TEXT[stats.limitation ?? ''] ?? UNKNOWN);
  setText(byId('sent-feedback'), `${count(stats.nackCount)} · ${count(stats.pliCount)}`);
  byId('layers').replaceChildren(...stats.layers.map(layerRow));
}

function main(): void {
  field('table').value = tableFromPath(location.pathname) ?? '';
  showName();
  showSource();
  showBitrate();
  showState();
  void listDevices();
  navigator.mediaDevices?.addEventListener('devicechange', () => void listDevices());

  publisher.addEventListener('change', showState);
  field('table').addEventListener('input', showName);
  field('bitrate').addEventListener('input', showBitrate);
  byId('capture').addEventListener('change', () => {
    showSource();
    // A screen has to be asked for by a click, and a closed camera stays closed.
    if (stream && captureChoice().source === 'camera') void openPreview();
    else if (stream) stop();
  });
  byId('open-preview').addEventListener('click', () => void openPreview());
  copyButton(byId<HTMLButtonElement>('copy'), () => byId('play-link').textContent ?? '');
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (publisher.state === 'idle' || publisher.state === 'failed') void start();
    else stop();
  });
  addEventListener('pagehide', stop);
  setInterval(async () => {
    const stats = await publisher.stats();
    if (stats) showStats(stats);
  }, STATS_MS);
}

main();
