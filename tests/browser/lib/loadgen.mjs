// Starts and stops the load generator beside a gateway: the only place that knows its
// command line.
//
// LOADGEN_BIN   the binary (default: the workspace's debug build)

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const BINARY = process.env.LOADGEN_BIN ?? fileURLToPath(new URL('../../../target/debug/loadgen', import.meta.url));
const SPEAKS_WITHIN_MS = 20_000;
/** Lines kept for the report of a failure. */
const LINES = 20;

function start(args) {
  const child = spawn(BINARY, args, { stdio: ['pipe', 'ignore', 'pipe'] });
  const exited = once(child, 'exit').catch((error) => [error]);
  const said = [];
  const waiting = [];
  createInterface({ input: child.stderr }).on('line', (line) => {
    said.push(line);
    if (said.length > LINES) said.shift();
    for (const { pattern, resolve } of waiting) if (pattern.test(line)) resolve(pattern.exec(line));
  });
  return {
    /** Writes a line to its standard input. */
    tell: (line) => child.stdin.write(`${line}\n`),
    /** The next line that fits `pattern`, as a match. */
    async hear(pattern) {
      let deadline;
      const ended = exited.then(() => Promise.reject(new Error(`loadgen ended: ${said.join('\n')}`)));
      const late = new Promise((_, reject) => {
        const words = () => reject(new Error(`loadgen does not say ${pattern}: ${said.join('\n')}`));
        deadline = setTimeout(words, SPEAKS_WITHIN_MS);
      });
      const heard = new Promise((resolve) => waiting.push({ pattern, resolve }));
      return Promise.race([heard, ended, late]).finally(() => clearTimeout(deadline));
    },
    async stop() {
      child.kill('SIGTERM');
      await exited;
    },
  };
}

/** A simulcast of the test pattern at a table: 1280x720, 640x360 and 320x180. */
export function publishPattern(gateway, table, { bitrate }) {
  const url = `${gateway.url}/whip/${table}`;
  return start(['publish', '--url', url, '--source', 'pattern', '--simulcast', '--bitrate', bitrate]);
}

/** A path to the gateway's media port that lets `rate` bits a second pass, until told otherwise. */
export async function narrowPath(gateway, rate) {
  const path = start(['impair', '--listen', '127.0.0.1:0', '--to', gateway.media, '--rate', rate, '--control']);
  const [, port] = await path.hear(/^127\.0\.0\.1:(\d+) -> /);
  return {
    port: Number(port),
    async change(to) {
      const done = path.hear(new RegExp(`^rate ${to}$`));
      path.tell(`rate ${to}`);
      await done;
    },
    stop: path.stop,
  };
}
