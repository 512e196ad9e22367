//! CPU time of the calling thread.

/// What a run cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) packets: u64,
    pub(crate) cpu_nanos: u64,
}

impl Cost {
    pub(crate) fn per_packet(&self) -> f64 {
        self.cpu_nanos as f64 / self.packets.max(1) as f64
    }
}

/// Nanoseconds that this thread has used so far, its system calls included.
pub(crate) fn thread_nanos() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local that outlives the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "the thread's clock");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
