// Starts and stops the gateway under test. The only place that knows its command
// line, its configuration keys and how it says that it is ready.
//
// RAILBIRD_BIN   the binary (default: the workspace's debug build)
// RAILBIRD_LOG   set to see the gateway's log on stderr

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const BINARY = process.env.RAILBIRD_BIN ?? fileURLToPath(new URL('../../../target/debug/railbird', import.meta.url));
const READY_WITHIN_MS = 20_000;
const STOP_WITHIN_MS = 10_000;
/** Lines of log kept for the report of a failure. */
const LOG_LINES = 50;

/** Port 0 lets the system choose, so that tests never meet another gateway. */
const ANY_PORTS = { http: '127.0.0.1:0', admin: '127.0.0.1:0', media: 0 };

function configuration({ http, admin, media }, more) {
  return `
[http]
listen = ["${http}"]

[admin]
listen = "${admin}"

[media]
port = ${media}
addresses = ["127.0.0.1"]
${more}`;
}

/** `media` is logged as a port or as an address with a port. */
function portOf(value) {
  const port = Number(String(value).split(':').at(-1));
  return Number.isInteger(port) ? port : 0;
}

/**
 * Starts `railbird {command} --config …`; `command` is `serve`, or `demo` for a
 * gateway with the synthetic dealer on table `demo`. `config` is appended to its
 * configuration. Resolves when it is ready.
 */
export async function startGateway({ command = 'serve', ports = ANY_PORTS, config: more = '' } = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'railbird-browser-'));
  const config = join(folder, 'railbird.toml');
  await writeFile(config, configuration(ports, more));
  const child = spawn(BINARY, [command, '--config', config], { stdio: ['ignore', 'pipe', 'pipe'] });
  const exited = once(child, 'exit').catch((error) => [error]);
  const log = [];
  const keep = (line) => {
    if (process.env.RAILBIRD_LOG) process.stderr.write(`${line}\n`);
    log.push(line);
    if (log.length > LOG_LINES) log.shift();
  };
  createInterface({ input: child.stdout }).on('line', keep);

  const stop = async (signal = 'SIGTERM') => {
    child.kill(signal);
    const patience = setTimeout(() => child.kill('SIGKILL'), STOP_WITHIN_MS);
    await exited;
    clearTimeout(patience);
    await rm(folder, { recursive: true, force: true });
  };

  let deadline;
  try {
    const ready = await Promise.race([
      readyLine(child.stderr, keep),
      exited.then((how) => Promise.reject(new Error(`the gateway ended before it was ready: ${how[0]}`))),
      new Promise((_, reject) => {
        deadline = setTimeout(() => reject(new Error('the gateway was not ready in time')), READY_WITHIN_MS);
      }),
    ]);
    return {
      url: `http://${ready.http}`,
      admin: `http://${ready.admin}`,
      /** The ports it got, to start another one on. */
      ports: { http: ready.http, admin: ready.admin, media: portOf(ready.media) },
      stop,
      log: () => log.join('\n'),
    };
  } catch (error) {
    if (child.pid !== undefined) await stop('SIGKILL');
    throw new Error(`${error.message}\n${log.join('\n')}`);
  } finally {
    clearTimeout(deadline);
  }
}

/** Reads JSON log lines to the end of the process; resolves with the one that says `ready`. */
function readyLine(log, keep) {
  return new Promise((resolve) => {
    createInterface({ input: log }).on('line', (line) => {
      keep(line);
      try {
        const entry = JSON.parse(line);
        // Fields stand beside the message, or under `fields`, as the formatter likes.
        const fields = { ...entry, ...entry.fields };
        if (fields.message === 'ready') resolve(fields);
      } catch {
        // Not a log line.
      }
    });
  });
}
