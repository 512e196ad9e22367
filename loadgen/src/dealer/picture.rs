//! The picture of a roulette table, one I420 frame at a time.
//!
//! Key idea: everything that stands still is drawn once and converted once. A
//! *card* (phase, results, bets) is redrawn only when what it says has changed;
//! per frame only the wheel, the clock's digits and the capture strip are written.

use tiny_skia::Pixmap;

use super::canvas::{Canvas, DESIGN_WIDTH, Fill, Ink, Rect};
use super::frame::{Area, Frame};
use super::layout::{self, GOLD, HISTORY, LAYOUT};
use super::rounds::{CLOSE_MS, Colour, Moment, Phase, RESULT_MS, colour, table_seed};
use super::text::{Align, Style, Typeface};
use super::wheel::{CENTRE, RIM, ROTOR, TRACK, Wheel};
use super::{DealerError, strip};
use crate::time::civil_date;

const HEADER: Rect = Rect::new(0.0, 0.0, 1280.0, 66.0);
const HEADER_INK: u32 = 0x07130f;
const PHASE: Rect = Rect::new(604.0, 84.0, 640.0, 176.0);
const DATE: Rect = Rect::new(700.0, 12.0, 240.0, 44.0);
const IVORY: Ink = Ink::solid(0xf8f3e6);
const MUTED: Ink = Ink::solid(0xa9bdb1);
/// The clock: digits and separators of `hh:mm:ss.mmm` on fixed cells.
const CLOCK_STYLE: Style = Style::bold(36.0);
const CLOCK_RIGHT: f32 = 1180.0;
const CLOCK_BASELINE: f32 = 46.0;

/// The state of one changing region: what it shows, so that it is drawn only on change.
#[derive(Default)]
struct Shown {
    day: Option<i64>,
    phase: Option<(i64, Phase, i64)>,
    ring: Option<(i64, Phase, i64)>,
    history: Option<(i64, bool)>,
    bets: Option<(i64, Phase, i64)>,
    clock: [Option<u8>; CLOCK_CELLS],
}

/// A letter of the clock and its picture.
type ClockGlyph = (char, Frame);

/// Cells of `hh:mm:ss.mmm`.
const CLOCK_CELLS: usize = 12;

/// Draws the table of one name at one size.
pub struct Picture {
    seed: u64,
    face: Typeface,
    /// The static background, and the same with the current cards on it.
    background: Pixmap,
    scratch: Pixmap,
    /// The static background as the encoder sees it.
    clean: Frame,
    frame: Frame,
    wheel: Wheel,
    glyphs: Vec<ClockGlyph>,
    cells: Vec<(usize, usize)>,
    shown: Shown,
}

impl Picture {
    /// Prepares the picture of `table` at `width` x `height` pixels.
    ///
    /// # Errors
    /// [`DealerError::Size`] unless the size is 16:9, a multiple of 32x18 and at
    /// most 3840 wide; [`DealerError::Font`] when the typeface cannot be loaded.
    pub fn new(table: &str, width: u32, height: u32) -> Result<Self, DealerError> {
        let size_error = DealerError::Size { width, height };
        let fits = width * 9 == height * 16 && width.is_multiple_of(32);
        if !fits || !(160..=3840).contains(&width) {
            return Err(size_error);
        }
        let face = Typeface::load()?;
        let mut background = Pixmap::new(width, height).ok_or(size_error)?;
        let mut canvas = Canvas { pixmap: &mut background, face: &face };
        paint_background(&mut canvas, table);
        let scale = width as f32 / DESIGN_WIDTH;
        let (w, h) = (width as usize, height as usize);
        let mut clean = Frame::new(w, h);
        clean.put_pixmap(&background, Area { x: 0, y: 0, w, h });
        for plane in [&mut clean.u, &mut clean.v] {
            let from = (h - strip::height(h)) / 2 * (w / 2);
            plane[from..].fill(128);
        }
        let (glyphs, cells) = clock_tiles(&face, &background, scale);
        Ok(Self {
            seed: table_seed(table),
            wheel: Wheel::new(&face, scale, w),
            scratch: background.clone(),
            frame: clean.clone(),
            shown: Shown::default(),
            face,
            background,
            clean,
            glyphs,
            cells,
        })
    }

    /// The picture at `utc_millis` (milliseconds since the Unix epoch), which is
    /// also what its clock and its capture strip say.
    pub fn draw(&mut self, utc_millis: i64) -> &Frame {
        let moment = Moment::at(self.seed, utc_millis);
        self.update_cards(moment);
        self.wheel.paint(&mut self.frame, &self.clean, moment.rotor(), moment.ball());
        self.update_clock(utc_millis);
        let (w, h) = (self.frame.width, self.frame.height);
        strip::encode(&mut self.frame.y, w, w, h, utc_millis);
        &self.frame
    }

    fn update_cards(&mut self, moment: Moment) {
        let (round, phase) = (moment.round, moment.phase());
        let day = moment.utc_ms.div_euclid(86_400_000);
        if replace(&mut self.shown.day, day) {
            self.card(DATE, |canvas| paint_date(canvas, day));
        }
        let second = (moment.phase_left_ms() + 999) / 1000;
        if replace(&mut self.shown.phase, (round, phase, second)) {
            self.card(phase_text_area(), |canvas| paint_phase(canvas, moment));
        }
        // The ring moves ten times a second: smooth enough, and a third of the work.
        if replace(&mut self.shown.ring, (round, phase, moment.elapsed_ms / 100)) {
            self.card(ring_area(), |canvas| paint_ring(canvas, moment));
        }
        let known = matches!(phase, Phase::Result | Phase::Settled);
        if replace(&mut self.shown.history, (round, known)) {
            self.card(HISTORY, |canvas| layout::paint_history(canvas, moment));
        }
        if replace(&mut self.shown.bets, (round, phase, layout::chips_down(moment))) {
            self.card(LAYOUT, |canvas| layout::paint_bets(canvas, moment));
        }
    }

    /// Redraws one region over the static background.
    fn card(&mut self, rect: Rect, paint: impl FnOnce(&mut Canvas<'_>)) {
        let mut canvas = Canvas { pixmap: &mut self.scratch, face: &self.face };
        let area = canvas.area(rect);
        let stride = canvas.pixmap.width() as usize * 4;
        let to = canvas.pixmap.data_mut();
        for row in area.y..area.y + area.h {
            let range = row * stride + area.x * 4..row * stride + (area.x + area.w) * 4;
            to[range.clone()].copy_from_slice(&self.background.data()[range]);
        }
        paint(&mut canvas);
        self.frame.put_pixmap(&self.scratch, area);
    }

    fn update_clock(&mut self, utc_millis: i64) {
        let text = clock_text(utc_millis);
        for (index, letter) in text.bytes().enumerate().take(CLOCK_CELLS) {
            if !replace(&mut self.shown.clock[index], letter) {
                continue;
            }
            let (x, y) = self.cells[index];
            if let Some((_, tile)) = self.glyphs.iter().find(|(c, _)| *c == char::from(letter)) {
                self.frame.put_tile(tile, x, y);
            }
        }
    }
}

/// Stores `value` and says whether it was a change.
fn replace<T: PartialEq>(slot: &mut Option<T>, value: T) -> bool {
    let changed = slot.as_ref() != Some(&value);
    *slot = Some(value);
    changed
}

fn clock_text(utc_millis: i64) -> String {
    let ms = utc_millis.rem_euclid(86_400_000);
    let (s, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", s / 3600, s / 60 % 60, s % 60)
}

/// Renders every glyph of the clock as a tile on the header, and places its cells.
fn clock_tiles(
    face: &Typeface,
    background: &Pixmap,
    scale: f32,
) -> (Vec<ClockGlyph>, Vec<(usize, usize)>) {
    let style = CLOCK_STYLE.scaled(scale);
    let even = |v: f32| (v.ceil() as usize + 1) & !1;
    let digit = even(face.width(style, "0"));
    let mark = even(face.width(style, ":"));
    let widths = [digit, digit, mark, digit, digit, mark, digit, digit, mark, digit, digit, digit];
    let total: usize = widths.iter().sum();
    let (left, top) = (even(CLOCK_RIGHT * scale) - total, even(10.0 * scale));
    let height = even(44.0 * scale);
    let mut x = left;
    let cells = widths.iter().map(|width| {
        x += width;
        (x - width, top)
    });
    let cells: Vec<_> = cells.collect();
    let glyphs = "0123456789:.".chars().map(|letter| {
        let width = if letter.is_ascii_digit() { digit } else { mark };
        let mut pixmap = background.clone();
        let mut canvas = Canvas { pixmap: &mut pixmap, face };
        let centre = (left as f32 + width as f32 / 2.0) / scale;
        canvas.text(CLOCK_STYLE, IVORY, &letter.to_string(), centre, CLOCK_BASELINE);
        let mut frame = Frame::new(background.width() as usize, background.height() as usize);
        let area = Area { x: left, y: top, w: width, h: height };
        frame.put_pixmap(&pixmap, area);
        (letter, frame.tile(area))
    });
    (glyphs.collect(), cells)
}

fn paint_background(canvas: &mut Canvas<'_>, table: &str) {
    let whole = Rect::new(0.0, 0.0, 1280.0, 720.0);
    let felt = Fill::Radial(560.0, 380.0, 880.0, Ink::solid(0x14604a), Ink::solid(0x061a14));
    canvas.fill_rect(whole, 0.0, felt);
    canvas.fill_rect(HEADER, 0.0, Fill::Flat(Ink::solid(HEADER_INK)));
    canvas.fill_rect(Rect::new(0.0, 66.0, 1280.0, 2.0), 0.0, Fill::Flat(GOLD));
    let name: String = table.to_uppercase().chars().take(18).collect();
    let title = Style::bold(34.0).align(Align::Left).tracked(0.04);
    canvas.text(title, IVORY, &name, 36.0, 45.0);
    let after = 36.0 + canvas.face.width(title, &name) + 22.0;
    let subtitle = Style::medium(24.0).align(Align::Left);
    canvas.text(subtitle, MUTED, "European Roulette", after, 44.0);
    canvas.text(Style::bold(24.0).align(Align::Left), GOLD, "UTC", 1192.0, 45.0);
    paint_bowl(canvas);
    canvas.fill_rect(PHASE, 14.0, Fill::Flat(Ink(0x04100c, 0.55)));
    canvas.stroke_rect(PHASE, 14.0, Ink(0xd9b45f, 0.5), 1.5);
    layout::paint_layout(canvas);
    let note = Style::medium(20.0).align(Align::Right);
    canvas.text(note, Ink(0xa9bdb1, 0.9), "Synthetic dealer", 1244.0, 671.0);
    canvas.text(
        note.align(Align::Left),
        Ink(0xa9bdb1, 0.9),
        "Single zero \u{b7} 35:1",
        604.0,
        671.0,
    );
}

fn paint_bowl(canvas: &mut Canvas<'_>) {
    let (x, y) = CENTRE;
    canvas.fill_circle((x + 4.0, y + 9.0), RIM + 7.0, Fill::Flat(Ink(0x000000, 0.35)));
    let wood = Fill::Vertical(Ink::solid(0x7a4522), Ink::solid(0x3a1e0f));
    canvas.fill_circle(CENTRE, RIM, wood);
    canvas.stroke_circle(CENTRE, RIM - 2.0, Ink(0xd9b45f, 0.85), 3.0, None);
    canvas.stroke_circle(CENTRE, RIM - 14.0, Ink(0xffdf9e, 0.12), 8.0, None);
    let track = Fill::Radial(x, y, TRACK, Ink::solid(0x20100a), Ink::solid(0x6a3d20));
    canvas.fill_circle(CENTRE, TRACK, track);
    canvas.stroke_circle(CENTRE, TRACK, Ink(0xd9b45f, 0.7), 2.0, None);
    for step in 0..8 {
        let angle = (step as f32 + 0.5) / 8.0 * std::f32::consts::TAU;
        let (sin, cos) = angle.sin_cos();
        let at = |r: f32, side: f32| (x + r * sin + side * cos, y - r * cos + side * sin);
        let flat = step % 2 == 0;
        let (long, wide) = if flat { (9.0, 4.0) } else { (4.0, 9.0) };
        let middle = 230.0;
        let points =
            [at(middle + long, 0.0), at(middle, wide), at(middle - long, 0.0), at(middle, -wide)];
        canvas.polygon(&points, Fill::Flat(Ink::solid(0xc9a24b)));
    }
    canvas.fill_circle(CENTRE, ROTOR + 2.0, Fill::Flat(Ink::solid(0x120c08)));
}

fn paint_date(canvas: &mut Canvas<'_>, day: i64) {
    let (year, month, date) = civil_date(day);
    let text = format!("{year:04}-{month:02}-{date:02}");
    canvas.text(Style::medium(24.0).align(Align::Right), MUTED, &text, 872.0, 44.0);
}

fn ring_centre() -> (f32, f32) {
    (PHASE.x + 92.0, PHASE.y + PHASE.h / 2.0)
}

fn ring_area() -> Rect {
    let (x, y) = ring_centre();
    Rect::new(x - 76.0, y - 76.0, 152.0, 152.0)
}

fn phase_text_area() -> Rect {
    Rect::new(PHASE.x + 178.0, PHASE.y + 6.0, PHASE.w - 190.0, PHASE.h - 12.0)
}

fn phase_ink(phase: Phase) -> Ink {
    match phase {
        Phase::Open => Ink::solid(0x4cd98a),
        Phase::Closed => Ink::solid(0xff6a55),
        Phase::Result => Ink::solid(0xffd766),
        Phase::Settled => Ink::solid(0x9fc7ff),
    }
}

fn paint_phase(canvas: &mut Canvas<'_>, moment: Moment) {
    let left = PHASE.x + 184.0;
    let seconds = (moment.phase_left_ms() + 999) / 1000;
    let result = moment.result();
    let (title, detail) = match moment.phase() {
        Phase::Open => ("PLACE YOUR BETS", format!("Betting closes in {seconds} s")),
        Phase::Closed => ("NO MORE BETS", "The ball is falling".to_owned()),
        Phase::Result => ("WINNING NUMBER", describe(result)),
        Phase::Settled => ("BETS SETTLED", format!("Next round in {seconds} s")),
    };
    let round = format!("ROUND {}", grouped(moment.round));
    let small = Style::bold(21.0).align(Align::Left).tracked(0.06);
    canvas.text(small, GOLD, &round, left, PHASE.y + 46.0);
    let big = Style::bold(46.0).align(Align::Left);
    canvas.text(big, phase_ink(moment.phase()), title, left, PHASE.y + 101.0);
    canvas.text(Style::medium(28.0).align(Align::Left), IVORY, &detail, left, PHASE.y + 145.0);
}

fn paint_ring(canvas: &mut Canvas<'_>, moment: Moment) {
    let centre = ring_centre();
    let ink = phase_ink(moment.phase());
    if matches!(moment.phase(), Phase::Result | Phase::Settled) {
        let number = moment.result();
        canvas.fill_circle(centre, 66.0, Fill::Flat(layout::number_ink(number)));
        canvas.stroke_circle(centre, 66.0, ink, 6.0, None);
        canvas.label(Style::bold(68.0), IVORY, &number.to_string(), centre);
        return;
    }
    let whole = match moment.phase() {
        Phase::Open => CLOSE_MS,
        _ => RESULT_MS - CLOSE_MS,
    };
    let share = (moment.phase_left_ms() / 100 * 100) as f32 / whole as f32;
    canvas.stroke_circle(centre, 62.0, Ink(0xffffff, 0.12), 11.0, None);
    // The last three seconds to bet are marked in red.
    let urgent = moment.phase() == Phase::Open && moment.phase_left_ms() <= 3_000;
    let ink = if urgent { phase_ink(Phase::Closed) } else { ink };
    canvas.arc(centre, 62.0, share, ink, 11.0);
    let seconds = (moment.phase_left_ms() + 999) / 1000;
    canvas.label(Style::bold(60.0), IVORY, &seconds.to_string(), centre);
}

fn describe(number: u8) -> String {
    let name = match colour(number) {
        Colour::Green => return "Zero".to_owned(),
        Colour::Red => "Red",
        Colour::Black => "Black",
    };
    let parity = if number.is_multiple_of(2) { "even" } else { "odd" };
    let half = if number <= 18 { "1 to 18" } else { "19 to 36" };
    format!("{name} \u{b7} {parity} \u{b7} {half}")
}

/// A number with thin groups of three digits.
fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + 4);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dealer::rounds::ROUND_MS;

    const NOON: i64 = 1_700_049_600_000 / ROUND_MS * ROUND_MS;

    #[test]
    fn the_strip_says_when_the_picture_was_drawn() {
        let mut picture = Picture::new("demo", 640, 360).unwrap();
        for step in [0, 33, 12_345, 19_999] {
            let frame = picture.draw(NOON + step);
            let read = strip::decode(&frame.y, 640, 640, 360);
            assert_eq!(read, Some((NOON + step) as u64 as u32));
        }
    }

    #[test]
    fn any_path_to_a_moment_gives_the_same_picture() {
        let mut walked = Picture::new("demo", 640, 360).unwrap();
        for step in (0..17_000).step_by(333) {
            walked.draw(NOON + step);
        }
        let mut fresh = Picture::new("demo", 640, 360).unwrap();
        let (a, b) = (walked.draw(NOON + 17_000), fresh.draw(NOON + 17_000));
        assert!(a.y == b.y && a.u == b.u && a.v == b.v);
    }

    #[test]
    fn odd_sizes_are_refused() {
        for (w, h) in [(0, 0), (1280, 700), (16, 9), (7680, 4320)] {
            assert!(matches!(Picture::new("t", w, h), Err(DealerError::Size { .. })));
        }
    }

    #[test]
    fn the_clock_reads_to_the_millisecond() {
        assert_eq!(clock_text(86_399_007), "23:59:59.007");
        assert_eq!(grouped(89_012_345), "89 012 345");
    }
}
