//! The gateway's own fan-out: the same types, sockets and passes that a worker runs.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use railbird::egress::fanout::{FanoutStream, PassContext};
use railbird::hub::Publisher;
use railbird::media::LayerId;
use railbird::net::udp::{SendBatch, UdpSettings, open_sockets};
use railbird::route::Route;

use crate::common::{HEADER, VIDEO, packet, publisher, utc, viewer};
use crate::cpu::{Cost, thread_nanos};
use crate::network::{LOCAL, address};
use crate::{FRAME, PACKET};

const FRAME_TIME: Duration = Duration::from_micros(33_333);
const AUDIO_TIME: Duration = Duration::from_millis(20);
const GOP: u64 = 60;
const AUDIO: LayerId = LayerId { track: 1, layer: 0 };
/// As a worker's turn.
const BUDGET: usize = 4096;

pub(crate) struct Engine {
    stream: FanoutStream,
    sink: SendBatch,
    now: Instant,
    frame: u64,
    next_audio: Option<Instant>,
    audio: u64,
    started: Vec<usize>,
    _socket: UdpSocket,
    _publisher: Publisher,
}

impl Engine {
    pub(crate) fn new(viewers: usize, with_audio: bool) -> Self {
        let settings = UdpSettings::default();
        let socket = open_sockets(&settings, 1).expect("a media socket").remove(0);
        let publisher = publisher();
        let mut stream = FanoutStream::new(publisher.stream().clone());
        let now = Instant::now();
        for n in 0..viewers {
            let to = Route { peer: address(n), local: Some(LOCAL.into()) };
            stream.join(now, viewer(n, to, publisher.stream()));
        }
        Self {
            stream,
            sink: SendBatch::new(&socket, &settings),
            now,
            frame: 0,
            next_audio: with_audio.then_some(now),
            audio: 0,
            started: Vec::new(),
            _socket: socket,
            _publisher: publisher,
        }
    }

    /// Sends frames as fast as it can; time in the stream runs as in life.
    pub(crate) fn run(&mut self, time: Duration) -> Cost {
        let end = Instant::now() + time;
        let sent_before = self.stream.stream().egress.snapshot().packets;
        let before = thread_nanos();
        while Instant::now() < end {
            self.now += FRAME_TIME;
            while let Some(at) = self.next_audio.filter(|at| *at <= self.now) {
                self.next_audio = Some(at + AUDIO_TIME);
                self.audio += 1;
                let packet = packet(self.audio, self.audio * 960, true, true, 120, self.now);
                self.stream.push(self.now, AUDIO, packet);
            }
            for n in 0..FRAME as u64 {
                let (seq, last) = (self.frame * FRAME as u64 + n, n + 1 == FRAME as u64);
                let key = self.frame.is_multiple_of(GOP);
                // As browsers cut frames: one byte more or less.
                let len = PACKET - HEADER - usize::from(n % 3 == 1);
                let packet = packet(seq, self.frame * 3000, last, key, len, self.now);
                self.stream.push(self.now, VIDEO, packet);
            }
            self.frame += 1;
            let context = PassContext::new(self.now, utc(self.frame));
            while self.stream.poll_timeout(self.now).is_some_and(|at| at <= self.now) {
                self.stream.pass(&context, BUDGET, &mut self.sink, &mut self.started);
                self.sink.flush();
            }
            self.started.clear();
        }
        let cpu_nanos = thread_nanos() - before;
        let packets = self.stream.stream().egress.snapshot().packets - sent_before;
        let counts = self.sink.take_counts();
        assert_eq!(counts.dropped.iter().sum::<u64>(), 0, "{counts:?}");
        Cost { packets, cpu_nanos }
    }
}
