//! A viewer behind a bottleneck: a queue that fills, and a receiver that estimates
//! and reports as libwebrtc does.

use std::collections::VecDeque;

use super::*;

const AUDIO_BPS: u64 = 64_000;
/// Small first, as browsers order them.
const LAYERS: [LayerState; 3] = [
    LayerState { flows: true, pixels: 320 * 180, bps: 150_000 },
    LayerState { flows: true, pixels: 640 * 360, bps: 600_000 },
    LayerState { flows: true, pixels: 1280 * 720, bps: 2_500_000 },
];
const TICK: Duration = Duration::from_millis(10);
/// From a choice to the keyframe that it waits for.
const KEYFRAME_WAIT: Duration = Duration::from_millis(300);
/// What the bottleneck's queue holds, in seconds of its rate.
const QUEUE_SECONDS: f64 = 0.3;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// libwebrtc's receiver-side estimate (`AimdRateControl`): up by 8 % a second to at
/// most 1.5 times what comes in, down to 0.85 of it when the delay grows.
#[derive(Default)]
struct Receiver {
    estimate: Option<f64>,
    /// Bits that came in each tick of the last second.
    window: VecDeque<f64>,
    last_delay: f64,
    hold: u32,
}

impl Receiver {
    /// Returns whether the estimate fell, which is reported at once.
    fn tick(&mut self, received: f64, delay: f64, age: Duration) -> bool {
        self.window.push_back(received);
        if self.window.len() > 100 {
            self.window.pop_front();
        }
        let throughput = self.window.iter().sum::<f64>() * 100.0 / self.window.len() as f64;
        let (overuse, drained) = (delay > 0.05 && delay >= self.last_delay, delay < 0.01);
        self.last_delay = delay;
        self.hold = self.hold.saturating_sub(1);
        if overuse && self.hold == 0 {
            self.hold = 30;
            let before = self.estimate.unwrap_or(f64::MAX);
            self.estimate = Some(before.min(0.85 * throughput));
            return true;
        }
        match &mut self.estimate {
            None if age > seconds(5) => self.estimate = Some(throughput),
            Some(estimate) if drained && self.hold == 0 => {
                let limit = 1.5 * throughput + 10_000.0;
                *estimate = estimate.max((*estimate * 1.0008).min(limit));
            }
            _ => {}
        }
        false
    }
}

struct World {
    now: Instant,
    start: Instant,
    layers: Vec<LayerState>,
    chooser: LayerChooser,
    /// What is on the wire, which follows the target.
    sent: Target,
    capacity: f64,
    /// Lost on the way, whatever the load.
    random_loss: f64,
    queue: f64,
    receiver: Receiver,
    reports_remb: bool,
    /// Bits of this second: sent, lost.
    second: (f64, f64),
    switches: Vec<(Instant, Switch)>,
}

impl World {
    fn new(layers: &[LayerState], capacity: f64) -> Self {
        let now = Instant::now();
        let best = layers.len() as u8 - 1;
        Self {
            now,
            start: now,
            layers: layers.to_vec(),
            chooser: LayerChooser::new(best),
            sent: Target::Layer(best),
            capacity,
            random_loss: 0.0,
            queue: 0.0,
            receiver: Receiver::default(),
            reports_remb: true,
            second: (0.0, 0.0),
            switches: Vec::new(),
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.now += TICK;
        let age = self.now - self.start;
        let dt = TICK.as_secs_f64();
        let settled = self.switches.last().is_none_or(|(at, _)| self.now - *at >= KEYFRAME_WAIT);
        if settled || self.chooser.target() == Target::Paused {
            self.sent = self.chooser.target();
        }
        let video = match self.sent {
            Target::Layer(layer) => self.layers[usize::from(layer)].bps,
            Target::Paused => 0,
        };
        let sent = (video + AUDIO_BPS) as f64 * dt;
        let arrived = sent * (1.0 - self.random_loss);
        let limit = self.capacity * QUEUE_SECONDS;
        let dropped = (self.queue + arrived - self.capacity * dt - limit).max(0.0);
        let through = (self.queue + arrived - dropped).min(self.capacity * dt);
        self.queue = self.queue + arrived - dropped - through;
        self.second.0 += sent;
        self.second.1 += sent - arrived + dropped;
        let fell = self.receiver.tick(through, self.queue / self.capacity, age);
        let whole_second = age.as_millis().is_multiple_of(1000);
        if self.reports_remb
            && (fell || whole_second)
            && let Some(estimate) = self.receiver.estimate
        {
            self.chooser.handle_estimate(self.now, estimate as u64);
        }
        if whole_second {
            let (sent, lost) = std::mem::take(&mut self.second);
            if self.sent != Target::Paused {
                self.chooser.handle_loss(self.now, (lost / sent * 255.0) as u8);
            }
        }
        if fell || age.as_millis().is_multiple_of(500) {
            self.choose();
        }
    }

    fn choose(&mut self) {
        if let Some(switch) = self.chooser.choose(self.now, &self.layers, AUDIO_BPS) {
            assert_eq!(switch.target, self.chooser.target());
            self.switches.push((self.now, switch));
        }
    }

    /// Runs and returns which part of the time `target` was sent.
    fn share_of(&mut self, target: Target, time: Duration) -> f64 {
        let (end, mut ticks, mut of) = (self.now + time, 0.0, 0.0);
        while self.now < end {
            self.tick();
            ticks += 1.0;
            of += f64::from(u8::from(self.sent == target));
        }
        of / ticks
    }

    fn reasons(&self) -> Vec<SwitchReason> {
        self.switches.iter().map(|(_, switch)| switch.reason).collect()
    }
}

#[test]
fn a_wide_path_keeps_the_best_layer() {
    let mut world = World::new(&LAYERS, 20e6);
    world.run(seconds(300));
    assert_eq!(world.switches, []);
}

#[test]
fn a_narrow_path_gets_the_layer_that_fits_and_tries_seldom() {
    for (capacity, fits) in [(1e6, 1), (900e3, 1), (400e3, 0), (300e3, 0)] {
        let mut world = World::new(&LAYERS, capacity);
        world.run(seconds(15));
        assert_eq!(world.sent, Target::Layer(fits), "{:?}", world.switches);
        let before = world.switches.len();
        let share = world.share_of(Target::Layer(fits), seconds(600));
        assert!(share > 0.9, "{share} at {capacity}");
        let switches = world.switches.len() - before;
        assert!(switches <= 20, "{switches} at {capacity}: {:?}", world.reasons());
        // Tries are further and further apart.
        let ups: Vec<_> =
            world.switches.iter().filter(|(_, s)| s.reason == SwitchReason::Up).collect();
        let gaps: Vec<_> = ups.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert!(gaps.last().is_none_or(|gap| *gap > seconds(60)), "{gaps:?}");
    }
}

#[test]
fn a_path_that_widens_is_followed_up_to_the_best_layer() {
    let mut world = World::new(&LAYERS, 300e3);
    world.run(seconds(60));
    assert_eq!(world.sent, Target::Layer(0));
    world.capacity = 20e6;
    let mut needed = 0;
    while world.sent != Target::Layer(2) && needed < 300 {
        world.run(seconds(1));
        needed += 1;
    }
    assert!(needed < 180, "{needed} s: {:?}", world.reasons());
    let before = world.switches.len();
    world.run(seconds(120));
    assert_eq!(world.switches.len(), before, "stays: {:?}", world.reasons());
}

#[test]
fn a_collapsed_path_keeps_its_audio_and_gets_its_video_back() {
    for layers in [&LAYERS[..], &LAYERS[2..]] {
        let mut world = World::new(layers, 20e6);
        world.run(seconds(20));
        world.capacity = 90e3;
        world.run(seconds(20));
        assert_eq!(world.sent, Target::Paused, "{:?}", world.switches);
        // Nearly all the time nothing but audio is sent, so that it gets through.
        let share = world.share_of(Target::Paused, seconds(120));
        assert!(share > 0.6, "{share}: {:?}", world.reasons());
        world.capacity = 20e6;
        world.run(seconds(40));
        assert_ne!(world.sent, Target::Paused, "{:?}", world.switches);
        world.run(seconds(200));
        assert_eq!(world.sent, Target::Layer(layers.len() as u8 - 1), "{:?}", world.reasons());
    }
}

#[test]
fn without_estimates_loss_alone_brings_down_and_quiet_brings_up() {
    let mut world = World::new(&LAYERS, 800e3);
    world.reports_remb = false;
    world.run(seconds(8));
    assert_eq!(world.sent, Target::Layer(1), "{:?}", world.switches);
    let share = world.share_of(Target::Layer(1), seconds(600));
    assert!(share > 0.9, "{share}");
    world.capacity = 20e6;
    world.run(seconds(150));
    assert_eq!(world.sent, Target::Layer(2), "{:?}", world.reasons());
}

#[test]
fn loss_that_is_not_congestion_costs_the_quality_but_not_the_video() {
    let mut world = World::new(&LAYERS, 20e6);
    world.random_loss = 0.2;
    world.run(seconds(20));
    assert_eq!(world.sent, Target::Layer(0));
    let share = world.share_of(Target::Layer(0), seconds(300));
    assert!(share > 0.9, "{share}: {:?}", world.reasons());
    assert!(!world.reasons().contains(&SwitchReason::Pause));
}

#[test]
fn forged_reports_buy_few_switches() {
    // An estimate and a loss for each second, and how long the values stay.
    type Forge = fn(u64) -> (u64, u8);
    let forges: [Forge; 5] = [
        |second| (if second.is_multiple_of(2) { 0 } else { u64::MAX }, 0),
        |second| (u64::MAX, if second.is_multiple_of(2) { 255 } else { 0 }),
        |second| (if second / 7 % 2 == 0 { 0 } else { u64::MAX }, 0),
        |second| {
            (if second / 16 % 2 == 0 { u64::MAX } else { 1 }, if second % 16 < 8 { 0 } else { 200 })
        },
        |second| (if second / 40 % 2 == 0 { u64::MAX } else { 0 }, 0),
    ];
    for (which, forge) in forges.into_iter().enumerate() {
        let start = Instant::now();
        let mut chooser = LayerChooser::new(2);
        let mut switches = Vec::new();
        for half in 0..2 * 1200u64 {
            let now = start + Duration::from_millis(half * 500);
            if half % 2 == 0 {
                let (estimate, loss) = forge(half / 2);
                chooser.handle_estimate(now, estimate);
                chooser.handle_loss(now, loss);
            }
            switches.extend(chooser.choose(now, &LAYERS, AUDIO_BPS).map(|_| now));
        }
        for at in &switches {
            let minute =
                switches.iter().filter(|other| **other >= *at && **other - *at < seconds(60));
            let minute = minute.count();
            assert!(minute <= 12, "forge {which}: {minute} in a minute");
        }
    }
}

#[test]
fn a_viewer_of_which_nothing_is_known_gets_the_best_layer_that_flows() {
    let mut world = World::new(&LAYERS, 20e6);
    world.reports_remb = false;
    let now = world.now;
    world.layers[2].flows = false;
    world.layers[1].flows = false;
    world.choose();
    assert_eq!(world.switches.last().unwrap().1, switch(0, SwitchReason::LayerGone));
    world.layers[1].flows = true;
    world.layers[2].flows = true;
    world.choose();
    assert_eq!(world.chooser.target(), Target::Layer(0), "a layer that flickers is not followed");
    world.now = now + AFTER_GONE;
    world.choose();
    assert_eq!(world.switches.last().unwrap().1, switch(2, SwitchReason::Up));
    // When nothing flows there is nothing to go to.
    world.layers.iter_mut().for_each(|layer| layer.flows = false);
    world.now += seconds(60);
    world.choose();
    assert_eq!(world.switches.len(), 2);
    assert_eq!(world.chooser.choose(world.now, &[], AUDIO_BPS), None);
}

fn switch(layer: u8, reason: SwitchReason) -> Switch {
    Switch { target: Target::Layer(layer), reason }
}

#[test]
fn a_choice_by_hand_holds_at_once_and_is_a_ceiling() {
    let mut world = World::new(&LAYERS, 20e6);
    world.run(seconds(10));
    world.chooser.choose_manually(Some(0));
    world.chooser.choose_manually(Some(0));
    world.choose();
    assert_eq!(world.switches, [(world.now, switch(0, SwitchReason::Manual))]);
    world.run(seconds(120));
    assert_eq!(world.switches.len(), 1, "{:?}", world.reasons());
    world.chooser.choose_manually(Some(1));
    world.choose();
    assert_eq!(world.switches.last().unwrap().1, switch(1, SwitchReason::Manual));
    // Its own choice that stops flowing is stood in for, by a lower one first.
    world.layers[1].flows = false;
    world.run(seconds(10));
    assert_eq!(world.switches.last().unwrap().1, switch(0, SwitchReason::LayerGone));
    world.layers[1].flows = true;
    world.run(seconds(30));
    assert_eq!(world.chooser.target(), Target::Layer(1), "{:?}", world.switches);
    // Back to automatic: up to the best, as the path has shown no trouble.
    world.chooser.choose_manually(None);
    world.run(seconds(60));
    assert_eq!(world.chooser.target(), Target::Layer(2), "{:?}", world.switches);
}

#[test]
fn a_choice_by_hand_that_the_path_does_not_carry_comes_down() {
    let mut world = World::new(&LAYERS, 400e3);
    world.run(seconds(15));
    world.chooser.choose_manually(Some(2));
    world.run(seconds(15));
    assert_eq!(world.sent, Target::Layer(0), "{:?}", world.switches);
    // Choosing over and over does not help either.
    for round in 0..600u16 {
        world.chooser.choose_manually(Some(1 + (round % 2) as u8));
        world.choose();
        world.run(Duration::from_millis(100));
    }
    assert!(world.switches.len() < 150, "{}", world.switches.len());
}

#[test]
fn a_choice_of_a_layer_that_is_not_there_is_no_choice() {
    let mut world = World::new(&LAYERS, 20e6);
    world.chooser.choose_manually(Some(9));
    world.run(seconds(30));
    assert_eq!(world.switches, []);
}
