// The player page: wires the player to its controls.

import { tableFromPath } from './api.ts';
import { exposeDiagnostics } from './diagnostics.ts';
import { byId, setText } from './dom.ts';
import { Overlay } from './overlay.ts';
import type { Transport } from './playback.ts';
import { Player, type PlayerState } from './player.ts';
import { QualityMenu } from './quality.ts';

/** A word beside the title, and a sentence where the picture would be. */
const STATE_TEXT: Record<PlayerState, [word: string, sentence: string]> = {
  connecting: ['Connecting', 'Connecting…'],
  playing: ['Live', ''],
  waiting: ['Not live yet', 'Table is not live yet – waiting'],
  reconnecting: ['Reconnecting', 'Connection lost – reconnecting'],
};

const VOLUME_KEY = 'railbird.volume';

/** Storage may be forbidden, and then throws at a touch. */
function storedVolume(): number {
  try {
    return Number(localStorage.getItem(VOLUME_KEY) ?? 1);
  } catch {
    return 1;
  }
}

function storeVolume(volume: string): void {
  try {
    localStorage.setItem(VOLUME_KEY, volume);
  } catch {
    // The next visit starts at full volume.
  }
}

function main(): void {
  const table = tableFromPath(location.pathname);
  if (table === null) return location.replace('/');
  document.title = `${table} · Railbird`;
  setText(byId('table'), table);

  const video = byId<HTMLVideoElement>('video');
  const asked = new URLSearchParams(location.search).get('transport');
  const player = new Player(table, video, asked === 'llhls' ? 'llhls' : 'webrtc');
  const overlay = new Overlay(byId('stats'), video, player);
  exposeDiagnostics(player, video);
  wireState(player);
  wireTransport(player);
  wireSound(video);
  wireScreen(video, overlay);
  new QualityMenu(byId('quality-frame'), byId<HTMLSelectElement>('quality'), video, player);
  player.start();
}

function wireState(player: Player): void {
  const stage = byId('stage');
  const show = () => {
    stage.dataset['state'] = player.state;
    const [word, sentence] = STATE_TEXT[player.state];
    setText(byId('state'), word);
    setText(byId('headline'), sentence);
    setText(byId('detail'), player.detail);
    const choice = byId('transport').querySelector<HTMLInputElement>(`input[value=${player.transport}]`);
    if (choice) choice.checked = true;
  };
  player.addEventListener('change', show);
  show();
}

function wireTransport(player: Player): void {
  byId('transport').addEventListener('change', (event) => {
    const transport = (event.target as HTMLInputElement).value as Transport;
    // The address keeps the choice, for a reload and for sharing.
    history.replaceState(null, '', `?transport=${transport}`);
    player.switchTo(transport);
  });
}

function wireSound(video: HTMLVideoElement): void {
  const unmute = byId<HTMLButtonElement>('unmute');
  const mute = byId<HTMLButtonElement>('mute');
  const volume = byId<HTMLInputElement>('volume');
  const stored = storedVolume();
  video.volume = stored >= 0 && stored <= 1 ? stored : 1;
  const show = () => {
    const silent = video.muted || video.volume === 0;
    unmute.hidden = !video.muted;
    mute.setAttribute('aria-pressed', String(silent));
    volume.value = String(silent ? 0 : video.volume);
  };
  unmute.addEventListener('click', () => {
    video.muted = false;
    // The button goes away: the keyboard must not lose its place.
    mute.focus({ preventScroll: true });
  });
  mute.addEventListener('click', () => {
    video.muted = !video.muted;
    if (!video.muted && video.volume === 0) video.volume = 1;
  });
  volume.addEventListener('input', () => {
    video.volume = Number(volume.value);
    video.muted = video.volume === 0;
    storeVolume(volume.value);
  });
  video.addEventListener('volumechange', show);
  show();
}

function wireScreen(video: HTMLVideoElement, overlay: Overlay): void {
  const stage = byId('stage');
  const statsButton = byId<HTMLButtonElement>('toggle-stats');
  const resume = byId<HTMLButtonElement>('resume');
  const toggleStats = () => {
    overlay.toggle();
    statsButton.setAttribute('aria-pressed', String(overlay.open));
  };
  const toggleFullscreen = () => {
    if (document.fullscreenElement) return void document.exitFullscreen();
    if (stage.requestFullscreen) return void stage.requestFullscreen().catch(() => undefined);
    // iPhones: only the video element itself can fill the screen.
    (video as { webkitEnterFullscreen?(): void }).webkitEnterFullscreen?.();
  };
  statsButton.addEventListener('click', toggleStats);
  byId('fullscreen').addEventListener('click', toggleFullscreen);

  // Something paused us (low power mode, a headset key): offer the way back.
  video.addEventListener('pause', () => (resume.hidden = video.ended || video.readyState === 0));
  video.addEventListener('play', () => (resume.hidden = true));
  video.addEventListener('emptied', () => (resume.hidden = true));
  resume.addEventListener('click', () => void video.play());

  const keys: Record<string, () => void> = {
    s: toggleStats,
    f: toggleFullscreen,
    m: () => byId('mute').click(),
  };
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    // Letters choose in a menu.
    if (event.target instanceof HTMLSelectElement) return;
    keys[event.key.toLowerCase()]?.();
  });
}

main();
