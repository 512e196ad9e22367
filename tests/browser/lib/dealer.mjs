// Publishes a table with the load generator's synthetic dealer.
//
// LOADGEN_BIN   the binary (default: the workspace's debug build)

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const BINARY = process.env.LOADGEN_BIN ?? fileURLToPath(new URL('../../../target/debug/loadgen', import.meta.url));
const LIVE_WITHIN_MS = 15_000;

/** Publishes `table` until `stop` is called; resolves when it is live. `options` are those of `loadgen publish`. */
export async function startDealer(gateway, table, options = []) {
  const whip = `${gateway.url}/whip/${table}`;
  const child = spawn(BINARY, ['publish', '--url', whip, ...options], { stdio: ['ignore', 'ignore', 'inherit'] });
  const exited = once(child, 'exit').catch((error) => [error]);
  const stop = async (signal = 'SIGINT') => {
    child.kill(signal);
    await exited;
  };
  const deadline = performance.now() + LIVE_WITHIN_MS;
  while (!(await isLive(gateway, table))) {
    if (performance.now() > deadline || child.exitCode !== null) {
      await stop('SIGKILL');
      throw new Error(`table ${table} did not go live`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return { stop };
}

async function isLive(gateway, table) {
  const tables = await (await fetch(`${gateway.url}/api/tables`)).json();
  return tables.some((one) => one.table === table && one.live);
}
