//! The round schedule of the synthetic table, a pure function of UTC.
//!
//! Key idea: rounds last exactly 20 s and are counted from the Unix epoch, and
//! every random-looking fact (result, bets, ball flight) is hashed from the table
//! name and the round number. So any two processes that know the time agree on
//! what the table shows, without talking to each other.

use std::f64::consts::TAU;

/// Length of a round in milliseconds.
pub const ROUND_MS: i64 = 20_000;
/// Milliseconds into the round when betting closes.
pub const CLOSE_MS: i64 = 12_000;
/// Milliseconds into the round when the result is announced.
pub const RESULT_MS: i64 = 16_000;
/// Milliseconds into the round when bets are settled.
pub const SETTLED_MS: i64 = 18_500;
/// Pockets of a single-zero wheel.
pub const POCKETS: usize = 37;

/// Numbers in the order of the wheel, clockwise from zero (European wheel).
pub const WHEEL: [u8; POCKETS] = [
    0, 32, 15, 19, 4, 21, 2, 25, 17, 34, 6, 27, 13, 36, 11, 30, 8, 23, 10, 5, 24, 16, 33, 1, 20,
    14, 31, 9, 22, 18, 29, 7, 28, 12, 35, 3, 26,
];
const REDS: [u8; 18] = [1, 3, 5, 7, 9, 12, 14, 16, 18, 19, 21, 23, 25, 27, 30, 32, 34, 36];

/// The rotor turns once in this many milliseconds, clockwise.
const ROTOR_MS: i64 = 10_000;
/// The dealer takes the ball out of its pocket, launches it, and it lands: ms into the round.
const PICKED_MS: i64 = 4_500;
const LAUNCH_MS: i64 = 6_000;
const DROP_MS: i64 = 13_000;
const LAND_MS: i64 = 15_400;

/// What the players may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Bets are accepted.
    Open,
    /// No more bets; the ball is falling.
    Closed,
    /// The winning number is announced.
    Result,
    /// Bets are paid.
    Settled,
}

/// Colour of a number on the wheel and the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Zero.
    Green,
    /// One of the eighteen red numbers.
    Red,
    /// One of the eighteen black numbers.
    Black,
}

/// The colour of `number` (0 to 36).
pub fn colour(number: u8) -> Colour {
    match number {
        0 => Colour::Green,
        n if REDS.contains(&n) => Colour::Red,
        _ => Colour::Black,
    }
}

/// Where the ball is, seen from above; angles in radians clockwise from the top.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ball {
    /// Angle on the fixed bowl.
    pub angle: f64,
    /// 0 on the outer track, 1 in a pocket of the rotor.
    pub depth: f64,
    /// Whether it is in flight (out of any pocket).
    pub flying: bool,
}

/// A moment of the game at one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Hash of the table name.
    seed: u64,
    /// Number of the round since the Unix epoch.
    pub round: i64,
    /// Milliseconds since the start of the round, `0..ROUND_MS`.
    pub elapsed_ms: i64,
    /// UTC milliseconds since the Unix epoch.
    pub utc_ms: i64,
}

impl Moment {
    /// The moment `utc_ms` (milliseconds since the Unix epoch) at the table whose
    /// name hashes to `seed` (see [`table_seed`]).
    pub fn at(seed: u64, utc_ms: i64) -> Self {
        let round = utc_ms.div_euclid(ROUND_MS);
        Self { seed, round, elapsed_ms: utc_ms.rem_euclid(ROUND_MS), utc_ms }
    }

    /// The phase of the round.
    pub fn phase(self) -> Phase {
        match self.elapsed_ms {
            ..CLOSE_MS => Phase::Open,
            CLOSE_MS..RESULT_MS => Phase::Closed,
            RESULT_MS..SETTLED_MS => Phase::Result,
            _ => Phase::Settled,
        }
    }

    /// Milliseconds until the phase ends.
    pub fn phase_left_ms(self) -> i64 {
        let end = match self.phase() {
            Phase::Open => CLOSE_MS,
            Phase::Closed => RESULT_MS,
            Phase::Result => SETTLED_MS,
            Phase::Settled => ROUND_MS,
        };
        end - self.elapsed_ms
    }

    /// The winning number of this round.
    pub fn result(self) -> u8 {
        self.result_of(self.round)
    }

    /// The winning number of any round at this table.
    pub fn result_of(self, round: i64) -> u8 {
        (hash(self.seed ^ round as u64) % POCKETS as u64) as u8
    }

    /// Deterministic random bits for item `index` of this round.
    pub fn draw(self, index: u64) -> u64 {
        hash(hash(self.seed ^ self.round as u64) ^ (index + 1))
    }

    /// Angle of the rotor in radians clockwise: where pocket 0 is.
    pub fn rotor(self) -> f64 {
        self.utc_ms.rem_euclid(ROTOR_MS) as f64 / ROTOR_MS as f64 * TAU
    }

    /// The ball, or `None` while the dealer has it in hand.
    pub fn ball(self) -> Option<Ball> {
        let resting = |number| {
            let angle = self.rotor() + pocket_angle(number);
            Some(Ball { angle, depth: 1.0, flying: false })
        };
        match self.elapsed_ms {
            ..PICKED_MS => resting(self.result_of(self.round - 1)),
            PICKED_MS..LAUNCH_MS => None,
            LAUNCH_MS..LAND_MS => Some(self.flight()),
            _ => resting(self.result()),
        }
    }

    /// The ball in flight: it runs against the rotor, slows down evenly, and is
    /// solved backwards from the pocket it must land in.
    fn flight(self) -> Ball {
        let land = Self::at(self.seed, self.round * ROUND_MS + LAND_MS);
        let left = (LAND_MS - self.elapsed_ms) as f64 / 1000.0;
        let (end_speed, deceleration) = (0.25 * TAU, 0.11 * TAU);
        let angle = land.rotor()
            + pocket_angle(self.result())
            + end_speed * left
            + deceleration * left * left / 2.0;
        let fallen = (self.elapsed_ms - DROP_MS) as f64 / (LAND_MS - DROP_MS) as f64;
        let fallen = fallen.clamp(0.0, 1.0);
        // Two shallow hops over the frets before it settles.
        let hop = (fallen * TAU * 1.5).sin().abs() * 0.16 * fallen * (1.0 - fallen) * 4.0;
        let depth = (fallen * fallen * (3.0 - 2.0 * fallen) - hop).clamp(0.0, 1.0);
        Ball { angle, depth, flying: true }
    }

    /// Index of the wheel pocket under the flying ball, for the ticks one hears.
    pub fn pocket_under_ball(self) -> Option<usize> {
        let ball = self.ball().filter(|ball| ball.flying)?;
        let relative = (ball.angle - self.rotor()).rem_euclid(TAU);
        Some((relative / TAU * POCKETS as f64) as usize % POCKETS)
    }
}

/// Angle of a number's pocket centre on the rotor, radians clockwise from zero.
pub fn pocket_angle(number: u8) -> f64 {
    let index = WHEEL.iter().position(|&n| n == number).unwrap_or(0);
    index as f64 / POCKETS as f64 * TAU
}

/// Seed of a table: a hash of its name (FNV-1a).
pub fn table_seed(table: &str) -> u64 {
    table.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// SplitMix64's finaliser: every bit of the input stirs every bit of the output.
pub fn hash(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_700_000_000_000;

    #[test]
    fn a_round_runs_through_its_phases_in_order() {
        let start = START.div_euclid(ROUND_MS) * ROUND_MS;
        let phase = |ms| Moment::at(1, start + ms).phase();
        assert_eq!((phase(0), phase(11_999)), (Phase::Open, Phase::Open));
        assert_eq!((phase(12_000), phase(15_999)), (Phase::Closed, Phase::Closed));
        assert_eq!((phase(16_000), phase(18_499)), (Phase::Result, Phase::Result));
        assert_eq!((phase(18_500), phase(19_999)), (Phase::Settled, Phase::Settled));
        assert_eq!(Moment::at(1, start + 20_000).round, Moment::at(1, start).round + 1);
        assert_eq!(Moment::at(1, start + 9_500).phase_left_ms(), 2_500);
    }

    #[test]
    fn two_processes_agree_and_two_tables_differ() {
        let results = |table: &str| -> Vec<u8> {
            let moment = Moment::at(table_seed(table), START);
            (0..50).map(|n| moment.result_of(moment.round + n)).collect()
        };
        assert_eq!(results("demo"), results("demo"));
        assert_ne!(results("demo"), results("vip"));
        assert!(results("demo").iter().all(|&n| n < 37));
    }

    #[test]
    fn the_ball_lands_in_the_winning_pocket_without_a_jump() {
        let start = START.div_euclid(ROUND_MS) * ROUND_MS;
        for round in 0..20 {
            let at = |ms| Moment::at(7, start + round * ROUND_MS + ms);
            let (before, after) = (at(LAND_MS - 1).ball().unwrap(), at(LAND_MS).ball().unwrap());
            let gap = (before.angle - after.angle + TAU * 0.5).rem_euclid(TAU) - TAU * 0.5;
            assert!(gap.abs() < 0.01, "jump of {gap} rad");
            assert!(
                (after.angle - at(LAND_MS).rotor() - pocket_angle(at(0).result())).abs() < 1e-9
            );
            assert!(before.depth > 0.98 && at(LAUNCH_MS).ball().unwrap().depth == 0.0);
        }
    }

    #[test]
    fn the_wheel_has_every_number_once() {
        let mut numbers = WHEEL;
        numbers.sort_unstable();
        assert!(numbers.iter().enumerate().all(|(index, &n)| index == usize::from(n)));
        assert_eq!(WHEEL.iter().filter(|&&n| colour(n) == Colour::Red).count(), 18);
    }
}
