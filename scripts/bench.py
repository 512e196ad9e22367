#!/usr/bin/env python3
"""Runs all benchmarks and writes docs/benchmarks.md.

The end-to-end part runs in a network namespace of its own: gateway, publisher and
viewers on its loopback, where nothing else is. Figures of one round are taken in turn
and medians of several rounds are reported; those that depend on the machine are
ratios to something measured in the same run. `--quick` is for trying the script.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = ROOT / "target/release"
REPORT = ROOT / "docs/benchmarks.md"
HTTP, ADMIN, MEDIA = 18080, 19090, 18443
BITRATE = "2.5M"
# Long enough for GOPs, reports and estimates to settle.
SETTLE = 3


def progress(text):
    print(f"== {text}", file=sys.stderr, flush=True)


def run(command, **options):
    return subprocess.run(command, check=True, cwd=ROOT, **options)


def build():
    progress("building")
    binaries = ["-p", "railbird", "-p", "railbird-loadgen", "--bins"]
    run(["cargo", "build", "--release", "--locked", "--quiet", *binaries])
    run(["cargo", "bench", "--locked", "--quiet", "--no-run"])


def fanout(arguments):
    """The rows of the fan-out benchmark, by case, and the device it sent to."""
    command = ["cargo", "bench", "--locked", "--quiet", "--bench", "fanout", "--", "--json"]
    output = run([*command, *arguments], stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.strip().splitlines()[-1])


def steps(quick):
    """Nanoseconds of each single step of the packet path, by criterion."""
    time_options = ["--measurement-time", "1", "--warm-up-time", "0.5"] if quick else []
    command = ["cargo", "bench", "--locked", "--quiet", "--bench", "packet", "--"]
    run([*command, *time_options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = {}
    for path in sorted((ROOT / "target/criterion").glob("**/new/estimates.json")):
        name = json.loads((path.parent / "benchmark.json").read_text())["full_id"]
        found[name] = json.loads(path.read_text())["median"]["point_estimate"]
    return found


def pinned(cpu, command):
    """On a processor of its own, where there are two."""
    return ["taskset", "-c", str(cpu), *command] if (os.cpu_count() or 1) > 1 else command


@contextlib.contextmanager
def ended(process, how=signal.SIGTERM):
    """Ends a process that was started here, and waits for it."""
    try:
        yield process
    finally:
        process.send_signal(how)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def gateway(workers, hls=False):
    """A gateway with a table live; gives its process."""
    config = f"""
[http]
listen = ["127.0.0.1:{HTTP}"]
[admin]
listen = "127.0.0.1:{ADMIN}"
[media]
port = {MEDIA}
addresses = ["127.0.0.1"]
workers = {workers}
# What is to be found is where it ends.
max_worker_load = 0
[hls]
enabled = {str(hls).lower()}
[log]
level = "warn,railbird::app=info"
format = "json"
"""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "railbird.toml"
        path.write_text(config)
        log = open(pathlib.Path(folder) / "log", "w+")
        command = [str(RELEASE / "railbird"), "serve", "--config", str(path)]
        # Answers to players may take every core, as on a node.
        command = command if hls else pinned(0, command)
        process = subprocess.Popen(command, stderr=log, stdout=subprocess.DEVNULL)
        with ended(process):
            wait_for(lambda: '"ready"' in pathlib.Path(log.name).read_text(), "the gateway")
            publish = [str(RELEASE / "loadgen"), "publish", "--source", "pattern"]
            publish += ["--bitrate", BITRATE, "--url", f"http://127.0.0.1:{HTTP}/whip/bench"]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            publisher = subprocess.Popen(pinned(1, publish), **quiet)
            with ended(publisher, signal.SIGINT):
                wait_for(lambda: '"live":true' in tables(), "the table")
                time.sleep(SETTLE)
                yield process


def wait_for(condition, what):
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    raise SystemExit(f"error: {what} did not come up within 30 s")


def tables():
    command = ["curl", "-s", f"http://127.0.0.1:{HTTP}/api/tables"]
    return subprocess.run(command, capture_output=True, text=True).stdout


def metric(name):
    """The sum of a metric's series."""
    command = ["curl", "-s", f"http://127.0.0.1:{ADMIN}/metrics"]
    text = subprocess.run(command, capture_output=True, text=True).stdout
    return sum(float(l.rsplit(" ", 1)[1]) for l in text.splitlines() if l.startswith(name))


def resident(process):
    text = pathlib.Path(f"/proc/{process.pid}/statm").read_text()
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def loadgen(process, verb, *arguments):
    """The JSON report of viewers; a threshold missed is a figure here, not an error."""
    path = "hls/bench/index.m3u8" if verb == "hls" else "whep/bench"
    command = [str(RELEASE / "loadgen"), verb, "--json", "--server-pid", str(process.pid)]
    command = pinned(1, [*command, "--url", f"http://127.0.0.1:{HTTP}/{path}", *arguments])
    if verb == "hls":
        # Players are not on the node: theirs is what the gateway leaves of the cores.
        command = ["nice", "-n", "19", *command]
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.stdout.strip():
        raise SystemExit(f"error: {' '.join(command)}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def end_to_end(quick):
    viewers, seconds = (200, "4s") if quick else (1000, "15s")
    found = {"viewers": viewers}
    with gateway(1) as process:
        empty = resident(process)
        progress(f"{viewers} viewers")
        calm = loadgen(process, "watch", "--viewers", str(viewers), "--join-rate", "250",
                       "--duration", seconds)
        found["calm"] = calm
        found["bytes_per_viewer"] = (calm["window"]["server"]["rssBytes"] - empty) / viewers
        progress("5 % of them at 20 % loss")
        found["impaired"] = loadgen(
            process, "watch", "--viewers", str(viewers), "--join-rate", "250", "--duration", seconds,
            "--loss", "20%", "--impair-share", "5%")
        progress("5 % of them with a path of 200 kbit/s")
        found["stalled"] = loadgen(
            process, "watch", "--viewers", str(viewers), "--join-rate", "250", "--duration", seconds,
            "--rate", "200k", "--impair-share", "5%")
    with gateway(1) as process:
        progress(f"{viewers} joins in a second")
        forwarded = 'railbird_keyframe_requests_total{table="bench",direction="forwarded"}'
        before = metric(forwarded)
        found["storm"] = loadgen(process, "storm", "--joins", str(viewers), "--within", "1s",
                                 "--duration", "3s")
        found["keyframe_requests"] = metric(forwarded) - before
    return found


def waiting(quick):
    """Players of one rendition that wait for every part, few and many of them."""
    found = {}
    few, many = (50, 500) if quick else (50, 5000)
    with gateway(1, hls=True) as process:
        for name, clients, seconds in (("few", few, 20), ("many", many, 10)):
            progress(f"{clients} LL-HLS players wait")
            found[name] = loadgen(
                process, "hls", "--playlists-only", "--no-audio", "--clients", str(clients), "--join-rate", "1000",
                "--rtt", "200ms", "--baseline", "3s", "--duration", f"{3 if quick else seconds}s")
        found["resident"] = found["many"]["window"]["server"]["rssBytes"]
        time.sleep(5)
        found["left"] = resident(process)
    return found


def attacks(quick):
    """What each kind of hostile viewer costs, and what the good ones beside it notice."""
    beside, seconds = ("50", "2s") if quick else ("500", "5s")
    with gateway(1) as process:
        progress(f"hostile viewers beside {beside} good ones")
        return loadgen(process, "hostile", "--kind", "all", "--rate", "40000", "--hop-every", "5ms",
                       "--quiet", "3s", "--duration", seconds, "--beside", beside)["kinds"]


def inside():
    """Continues in a network namespace, whose loopback is up."""
    command = ["unshare", "--net", sys.executable, __file__, "--end-to-end", *sys.argv[1:]]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output)


def machine():
    fields = {}
    for line in subprocess.run(["lscpu"], capture_output=True, text=True).stdout.splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    rust = subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.strip()
    return (f"{fields.get('CPU(s)', '?')} cores of {fields.get('Model name', '?')}, "
            f"L2 {fields.get('L2 cache', '?')}, Linux {platform.release()}, {rust}, "
            f"load {os.getloadavg()[0]:.1f} when it began")


def median_of(rounds, pick):
    values = [pick(one) for one in rounds]
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else float("nan")


def clean(report):
    """The viewers whose path is good."""
    return next(group for group in report["groups"] if group["name"] == "clean")


def p99(group, which):
    latency = group["latencyMs"]
    return latency[which]["p99"] if latency and latency[which] else None


def verdict(value, limit, at_least=False):
    return "met" if (value >= limit if at_least else value <= limit) else "**missed**"


def hostile(kinds):
    """The section about hostile viewers."""
    lines = [
        "", "## Hostile viewers", "",
        "One viewer that connects properly and then sends 40 000 packets a second (*address-hop*: moves every 5 ms), beside good",
        "ones. CPU is what the whole gateway spends more than before the attack, per hostile packet.", "",
        "| kind | ns per hostile packet | good viewers' loss | damaged frames | freezes | p99 |", "|---|---|---|---|---|---|",
    ]
    for kind in kinds:
        beside = kind["beside"]
        # Of few packets the price is lost in the noise of the good viewers.
        price = f"{kind['server']['nanosPerPacket']:.0f}" if kind["packets"] > 50_000 else ""
        lines.append(f"| {kind['kind']} | {price} | {beside['loss']:.4%} | {beside['framesDamaged']} | {beside['freezes']} "
                     f"| {p99(beside, 'all'):.1f} ms |")
    return lines


def players(rounds):
    """The target lines of LL-HLS, and the section about it."""
    cost = lambda which: median_of(rounds, lambda r: r[which]["window"]["server"]["microsPerPlaylist"])
    spread = lambda which, key: median_of(rounds, lambda r: r[which]["answerSpreadMs"][key])
    few, many, clients = cost("few"), cost("many"), rounds[0]["many"]["clients"]
    p99, ratio = spread("many", "p99"), many / few
    memory = median_of(rounds, lambda r: r["many"]["window"]["server"]["rssBytesPerClient"]) / 1024
    resident_mb = median_of(rounds, lambda r: r["resident"]) / 1e6
    left_mb = median_of(rounds, lambda r: r["left"]) / 1e6
    targets = [
        f"| LL-HLS: {clients} players wait for a part: answered, p99 | ≤ 50 ms | {p99:.0f} ms | {verdict(p99, 50)} |",
        f"| CPU per blocked playlist, {clients} players ÷ {rounds[0]['few']['clients']} | ≤ 1.2 | {ratio:.2f} | {verdict(ratio, 1.2)} |",
        f"| memory per waiting player | ≤ 24 KiB | {memory:.1f} KiB | {verdict(memory, 24)} |",
    ]
    section = [
        "", "## LL-HLS", "",
        f"Players on one rendition, HTTP/1.1 in the clear, each waiting for every next part (playlists only, 200 ms away). Medians of {len(rounds)} rounds.",
        "Times are from the first player's answer to each player's, by the kernel's receive time; the players share the machine,",
        "at the lowest priority.", "",
        "| players | CPU per blocked playlist | answered p50 | p95 | p99 | last |", "|---|---|---|---|---|---|",
    ]
    for which in ("few", "many"):
        section.append(f"| {rounds[0][which]['clients']} | {cost(which):.1f} us | " + " | ".join(
            f"{spread(which, key):.1f} ms" for key in ("p50", "p95", "p99", "max")) + " |")
    section += ["", f"Resident with {clients} players {resident_mb:.0f} MB, five seconds after they left {left_mb:.0f} MB."]
    return targets, section


def report(hardware, software, single, rounds, kinds, waits, about):
    nanos = {row["case"]: row["nanosPerPacket"] for row in hardware["rows"]}
    soft = {row["case"]: row["nanosPerPacket"] for row in software["rows"]}
    reference = next(name for name in nanos if name.startswith("reference"))
    to_limit = nanos["engine 1000"] / nanos["limit 1000"]
    to_reference = nanos[reference] / nanos["engine 1000"]
    growth = nanos["engine 4000"] / nanos["engine 100"]
    limit_growth = nanos["limit 4000"] / nanos["limit 100"]
    viewers = rounds[0]["viewers"]
    others = median_of(rounds, lambda r: p99(r["calm"]["total"], "others"))
    keys = median_of(rounds, lambda r: p99(r["calm"]["total"], "keyframes"))
    first = median_of(rounds, lambda r: r["storm"]["total"]["firstFrameMs"]["p95"])
    joined = min(r["storm"]["total"]["firstFrames"] for r in rounds)
    asked = max(r["keyframe_requests"] for r in rounds)
    memory = median_of(rounds, lambda r: r["bytes_per_viewer"]) / 1024
    lines = [
        "# Benchmarks", "",
        "Written by `make bench`, which measures all of it again. How to read and to repeat it: [tuning](tuning.md).",
        "", f"Machine: {about}.", "",
        "## Targets", "", "| what | target | measured | |", "|---|---|---|---|",
        f"| engine ÷ limit loop, CPU per delivered packet, 1000 viewers, one worker | ≤ 1.6 | {to_limit:.2f} | {verdict(to_limit, 1.6)} |",
        f"| the same, segments cut by the kernel | ≤ 1.6 | {soft['engine 1000'] / soft['limit 1000']:.2f} | {verdict(soft['engine 1000'] / soft['limit 1000'], 1.6)} |",
        f"| peer connection and `send_to` ÷ engine | ≥ 4 | {to_reference:.1f} | {verdict(to_reference, 4, True)} |",
        f"| growth of CPU per packet from 100 to 4000 viewers (the limit loop's own: {limit_growth:.2f}) | ≤ 1.3 | {growth:.2f} | {verdict(growth, 1.3)} |",
        f"| latency added at {viewers} viewers of 2.5 Mbit/s, one worker, p99, outside keyframes | ≤ 10 ms | {others:.1f} ms | {verdict(others, 10)} |",
        f"| the same, keyframes | ≤ 40 ms | {keys:.1f} ms | {verdict(keys, 40)} |",
        f"| {viewers} joins in 1 s: first frames | all | {joined} | {verdict(joined, viewers, True)} |",
        f"| first frame, p95 | ≤ 500 ms | {first:.0f} ms | {verdict(first, 500)} |",
        f"| keyframe requests that reached the publisher | ≤ 2 | {asked:.0f} | {verdict(asked, 2)} |",
        f"| memory per connected viewer | ≤ 32 KiB | {memory:.1f} KiB | {verdict(memory, 32)} |",
    ]
    for name, what in (("impaired", "at 20 % loss"), ("stalled", "on 200 kbit/s")):
        lost = max(clean(r[name])["loss"] for r in rounds)
        ratio = median_of(rounds, lambda r: p99(clean(r[name]), "others")) / others
        lines.append(f"| 5 % of viewers {what}: packets that the others lose | none added | {lost:.4%} | {verdict(lost, 0)} |")
        lines.append(f"| p99 of the others against a calm run | ≤ 1.2 | {ratio:.2f} | {verdict(ratio, 1.2)} |")
    scaling = hardware.get("twoWorkers")
    if scaling:
        lines.append(f"| two workers ÷ one, packets per second | ≥ 1.8 | {scaling:.2f} | {verdict(scaling, 1.8, True)} |")
    targets, section = players(waits)
    lines += targets
    server = lambda key: median_of(rounds, lambda r: r["calm"]["window"]["server"][key])
    sent = median_of(rounds, lambda r: r["calm"]["window"]["mbitPerSecond"])
    lines += [
        "", "## CPU per delivered packet", "",
        "Thread CPU time in ns per 1200-byte packet; packets go to an `ifb` device that drops them, so that no receiver is in",
        f"the figure. Medians of {len(hardware['rows'][0]['rounds'])} interleaved rounds. *Limit*: copy, seal and segmented send, nothing else.",
        "*Reference*: `rtc`'s peer connections with default interceptors.", "",
        "| case | segments left to the device | cut by the kernel |", "|---|---|---|",
    ]
    for row in hardware["rows"]:
        other = soft.get(row["case"])
        kernel = f"{other:.0f}" if other else ""
        lines.append(f"| {row['case']} | {row['nanosPerPacket']:.0f} ({row['least']:.0f} to {row['most']:.0f}) | {kernel} |")
    lines += [
        "", "## End to end", "",
        f"Gateway with one worker, publisher and {viewers} viewers of the load generator on one machine's loopback, which charges the",
        "sender with a part of the receivers' work. Medians of "
        f"{len(rounds)} rounds: {sent:.0f} Mbit/s delivered, {server('cores') * 100:.0f} % of a core,",
        f"{server('nanosPerPacket'):.0f} ns of the whole process's CPU per packet, {server('secondsPerGbit'):.3f} s per Gbit.",
    ]
    lines += section
    lines += hostile(kinds)
    lines += [
        "", "## Single steps", "", "| step | ns, median |", "|---|---|",
    ]
    lines += [f"| {name} | {value:.0f} |" for name, value in single.items()]
    REPORT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short runs, to try the script")
    parser.add_argument("--end-to-end", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.end_to_end:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        # Any run, calm ones too, may have a p99 of three times the usual: five outvote two.
        rounds = [end_to_end(options.quick) for _ in range(1 if options.quick else 5)]
        waits = [waiting(options.quick) for _ in range(1 if options.quick else 3)]
        json.dump({"rounds": rounds, "attacks": attacks(options.quick), "waiting": waits}, sys.stdout)
        return
    if os.geteuid() != 0:
        raise SystemExit("error: the benchmarks make network namespaces, which needs root")
    about = machine()
    build()
    progress("fan-out, segments left to the device")
    short = ["--rounds", "3", "--millis", "200"] if options.quick else []
    hardware = fanout([*short])
    progress("fan-out, segments cut by the kernel")
    software = fanout([*short, "--software-gso", "--viewers", "1000", "--reference", "0"])
    progress("single steps")
    single = steps(options.quick)
    found = inside()
    report(hardware, software, single, found["rounds"], found["attacks"], found["waiting"], about)


if __name__ == "__main__":
    main()
