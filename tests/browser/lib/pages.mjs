// What tests do with the pages. Every wait is for a condition, with a deadline;
// the player's state comes from its public diagnostics hook, `window.railbird`.

/** Waits until the player says it is in `state`. */
export function playerIn(page, state, timeout = 15_000) {
  return page.waitForFunction((wanted) => window.railbird?.state === wanted, state, { timeout });
}

/** One reading of the player. */
export function stats(page) {
  return page.evaluate(() => window.railbird.stats());
}

/**
 * Waits until `more` frames beyond those of now are decoded. Fails as soon as the
 * player leaves `playing`. Returns the readings before and after.
 */
export async function playFrames(page, more, timeout) {
  const before = await stats(page);
  const wanted = (before.framesDecoded ?? 0) + more;
  // Polled here: `waitForFunction` takes a promise for an answer without waiting for it.
  const outcome = await page.evaluate(
    async ([frames, patience]) => {
      const deadline = performance.now() + patience;
      while (performance.now() < deadline) {
        if (window.railbird.state !== 'playing') return `the player left playing: ${window.railbird.state} ${document.querySelector('#detail')?.textContent}`;
        if (((await window.railbird.stats()).framesDecoded ?? 0) >= frames) return 'done';
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      return `not ${frames} frames within ${patience} ms`;
    },
    [wanted, timeout],
  );
  if (outcome !== 'done') throw new Error(outcome);
  return { before, after: await stats(page) };
}

/** Glass-to-glass milliseconds of `count` frames, sorted; frames without a readable strip are left out. */
export async function glassToGlass(page, count) {
  const values = await page.evaluate(async (wanted) => {
    const read = [];
    for (let frame = 0; frame < wanted; frame++) read.push(await window.railbird.glassToGlassMs());
    return read;
  }, count);
  return values.filter((value) => value !== null).sort((a, b) => a - b);
}

/** The middle of sorted values. */
export function median(values) {
  return values[Math.floor(values.length / 2)];
}

/** Opens the publisher page, goes on the air and waits until it says so. */
export async function publish(page, url, table, { simulcast = false, codec = 'H264' } = {}) {
  await page.goto(`${url}/publish/${table}`);
  await page.selectOption('#codec', codec);
  if (simulcast) await page.check('#simulcast');
  await page.click('#go');
  await page.waitForSelector('#stage[data-state=live]', { timeout: 15_000 });
}

/** Waits until the height of the picture, as decoded, is one that `fits`. */
export async function waitForHeight(page, fits, timeout) {
  const deadline = Date.now() + timeout;
  for (;;) {
    const height = await page.evaluate(() => document.querySelector('video').videoHeight);
    if (fits(height)) return;
    if (Date.now() > deadline) throw new Error(`the picture is still ${height} pixels high after ${timeout} ms`);
    await page.waitForTimeout(50);
  }
}

/**
 * Notes, from now on, when each picture was shown and its size. `steady(ms)` waits until
 * so much has been shown, `stop()` returns what was seen: pictures, the longest time in
 * milliseconds between two of them, and each height with its first moment.
 */
export async function recordPicture(page) {
  await page.evaluate(() => {
    const video = document.querySelector('video');
    const seen = { pictures: 0, longestGapMs: 0, longestGapAtMs: 0, heights: [] };
    let last = null;
    const note = (now, { height }) => {
      if (last !== null && now - last > seen.longestGapMs) [seen.longestGapMs, seen.longestGapAtMs] = [now - last, now];
      if (seen.heights.at(-1)?.height !== height) seen.heights.push({ height, atMs: now });
      seen.pictures += 1;
      last = now;
      video.requestVideoFrameCallback(note);
    };
    video.requestVideoFrameCallback(note);
    window.pictureSeen = seen;
  });
  const pictures = () => page.evaluate(() => window.pictureSeen.pictures);
  return {
    async steady(ms) {
      const before = await pictures();
      await page.waitForFunction((wanted) => window.pictureSeen.pictures >= wanted, before + (ms / 1000) * 25, {
        timeout: ms * 3,
      });
    },
    stop: () => page.evaluate(() => window.pictureSeen),
  };
}
