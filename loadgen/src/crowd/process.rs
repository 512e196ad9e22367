//! What a process costs: CPU time and memory from `/proc` (proc(5)), and the limit of
//! open files that a crowd runs into.

use std::io;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

/// CPU time and memory of a process at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Time of all its threads, user and system.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub rss: u64,
}

/// Reads what process `pid` has used so far.
///
/// # Errors
/// When there is no such process, or it is not shown to us.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = rustix::param::clock_ticks_per_second();
    let usage = parse(&stat, ticks, rustix::param::page_size() as u64);
    let mut usage = usage
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unexpected /proc/PID/stat"))?;
    // Ticks miss what wakes for microseconds; the scheduler counts nanoseconds, but only of
    // the threads that live.
    usage.cpu = usage.cpu.max(scheduled(pid).unwrap_or_default());
    Ok(usage)
}

/// Time that the threads of a process have run, where the kernel tells (schedstat).
fn scheduled(pid: u32) -> io::Result<Duration> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))?;
    let nanos = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_ascii_whitespace().next()?.parse::<u64>().ok()
    });
    Ok(Duration::from_nanos(nanos.sum()))
}

/// Fields 14 and 15 are ticks of user and system time, field 24 is pages resident.
fn parse(stat: &str, ticks_per_second: u64, page: u64) -> Option<Usage> {
    // The name in parentheses may hold anything, parentheses and spaces too.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let resident: u64 = fields.nth(8)?.parse().ok()?;
    let cpu = Duration::from_secs_f64((user + system) as f64 / ticks_per_second.max(1) as f64);
    Some(Usage { cpu, rss: resident * page })
}

/// Raises the limit of open files as far as it goes; returns what it is then.
pub fn raise_open_files() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "the limit of open files stays");
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15 16 17 18 19 20 3 22";
        let usage = parse(stat, 100, 4096).unwrap();
        assert_eq!(usage, Usage { cpu: Duration::from_secs(3), rss: 3 * 4096 });
        assert_eq!(parse("7 (a) S 1", 100, 4096), None);
    }

    #[test]
    fn this_process_can_be_read_and_one_that_is_not_cannot() {
        assert!(usage(std::process::id()).unwrap().rss > 0);
        assert!(usage(u32::MAX).is_err());
        assert!(raise_open_files() > 0);
    }
}
