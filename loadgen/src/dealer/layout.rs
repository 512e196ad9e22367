//! The betting layout, the chips on it and the row of last results.

use super::canvas::{Canvas, Fill, Ink, Rect};
use super::rounds::{CLOSE_MS, Colour, Moment, Phase, colour};
use super::text::{Align, Style};

/// Where the layout stands.
pub const LAYOUT: Rect = Rect::new(604.0, 352.0, 640.0, 284.0);
/// Where the row of results stands.
pub const HISTORY: Rect = Rect::new(604.0, 276.0, 640.0, 60.0);

const CELL_W: f32 = 46.0;
const CELL_H: f32 = 62.0;
const SIDE_W: f32 = 44.0;
const BAND_H: f32 = 48.0;
const LINE: Ink = Ink(0xe9dfc4, 0.55);
const IVORY: Ink = Ink::solid(0xf6f0e1);
/// Gold of highlights and labels.
pub const GOLD: Ink = Ink::solid(0xd9b45f);
/// Chips a round draws, and the pause between two of them in milliseconds.
const CHIPS: i64 = 14;
const CHIP_EVERY_MS: i64 = 800;
const CHIP_COLOURS: [(u32, &str); 4] =
    [(0xc2342f, "5"), (0x2563b8, "10"), (0x1f8a4c, "25"), (0x2a2b30, "100")];

/// Fill colour of a number.
pub fn number_ink(number: u8) -> Ink {
    match colour(number) {
        Colour::Green => Ink::solid(0x12864b),
        Colour::Red => Ink::solid(0xbb2230),
        Colour::Black => Ink::solid(0x1a1b1f),
    }
}

/// The cell of a number on the layout.
fn number_cell(number: u8) -> Rect {
    if number == 0 {
        return Rect::new(LAYOUT.x, LAYOUT.y, CELL_W, 3.0 * CELL_H);
    }
    let index = f32::from(number - 1);
    let column = (index / 3.0).floor();
    let row = 2.0 - (index - column * 3.0);
    let x = LAYOUT.x + CELL_W + column * CELL_W;
    Rect::new(x, LAYOUT.y + row * CELL_H, CELL_W, CELL_H)
}

/// Draws the empty layout: part of the static background.
pub fn paint_layout(canvas: &mut Canvas<'_>) {
    for number in 0..=36 {
        let cell = number_cell(number);
        canvas.fill_rect(cell.inset(2.0), 4.0, Fill::Flat(number_ink(number)));
        canvas.stroke_rect(cell, 0.0, LINE, 1.5);
        let style = Style::bold(if number == 0 { 34.0 } else { 26.0 });
        canvas.label(style, IVORY, &number.to_string(), cell.centre());
    }
    for row in 0..3 {
        let x = LAYOUT.x + CELL_W * 13.0;
        let cell = Rect::new(x, LAYOUT.y + row as f32 * CELL_H, SIDE_W - 1.0, CELL_H);
        canvas.stroke_rect(cell, 0.0, LINE, 1.5);
        canvas.label(Style::bold(18.0), IVORY, "2:1", cell.centre());
    }
    let dozens = ["1st 12", "2nd 12", "3rd 12"];
    let y = LAYOUT.y + 3.0 * CELL_H;
    for (index, label) in dozens.into_iter().enumerate() {
        let x = LAYOUT.x + CELL_W * (1.0 + 4.0 * index as f32);
        let cell = Rect::new(x, y, 4.0 * CELL_W, BAND_H);
        canvas.stroke_rect(cell, 0.0, LINE, 1.5);
        canvas.label(Style::bold(24.0), IVORY, label, cell.centre());
    }
    for index in 0..6 {
        let x = LAYOUT.x + CELL_W * (1.0 + 2.0 * index as f32);
        let cell = Rect::new(x, y + BAND_H, 2.0 * CELL_W, BAND_H);
        paint_outside(canvas, index, cell);
    }
}

fn paint_outside(canvas: &mut Canvas<'_>, index: usize, cell: Rect) {
    canvas.stroke_rect(cell, 0.0, LINE, 1.5);
    let (x, y) = cell.centre();
    let labels = ["1-18", "EVEN", "", "", "ODD", "19-36"];
    if let Some(label) = labels.get(index).filter(|label| !label.is_empty()) {
        canvas.label(Style::bold(22.0), IVORY, label, (x, y));
        return;
    }
    let ink = number_ink(if index == 2 { 1 } else { 2 });
    let diamond = [(x - 26.0, y), (x, y - 14.0), (x + 26.0, y), (x, y + 14.0)];
    canvas.polygon(&diamond, Fill::Flat(ink));
}

/// How many chips lie on the layout now.
pub fn chips_down(moment: Moment) -> i64 {
    match moment.phase() {
        Phase::Open => (moment.elapsed_ms / CHIP_EVERY_MS).min(CHIPS),
        Phase::Closed | Phase::Result => CHIPS.min(CLOSE_MS / CHIP_EVERY_MS),
        Phase::Settled => 0,
    }
}

/// Draws chips, and on a result the winner's marker, over the empty layout.
pub fn paint_bets(canvas: &mut Canvas<'_>, moment: Moment) {
    for index in 0..chips_down(moment) {
        let bits = moment.draw(index as u64);
        let cell = number_cell((bits % 37) as u8);
        let (x, y) = cell.centre();
        // On the number, on a line between two, or on a corner.
        let shift = (bits >> 8) % 3;
        let x = if shift == 1 && cell.x > LAYOUT.x { x - CELL_W / 2.0 } else { x };
        let y = if shift == 2 { y + CELL_H / 2.0 - 18.0 } else { y };
        let (rgb, label) = CHIP_COLOURS[(bits >> 16) as usize % CHIP_COLOURS.len()];
        paint_chip(canvas, (x, y), rgb, label);
    }
    if matches!(moment.phase(), Phase::Result | Phase::Settled) {
        let cell = number_cell(moment.result());
        canvas.fill_rect(cell.inset(1.0), 4.0, Fill::Flat(number_ink(moment.result())));
        canvas.fill_rect(cell.inset(1.0), 4.0, Fill::Flat(Ink(0xffe7a3, 0.18)));
        canvas.stroke_rect(cell.inset(1.0), 4.0, Ink::solid(0xffd766), 5.0);
        canvas.label(Style::bold(28.0), IVORY, &moment.result().to_string(), cell.centre());
    }
}

fn paint_chip(canvas: &mut Canvas<'_>, (x, y): (f32, f32), rgb: u32, label: &str) {
    canvas.fill_circle((x + 1.5, y + 3.0), 17.0, Fill::Flat(Ink(0x000000, 0.4)));
    canvas.fill_circle((x, y), 17.0, Fill::Flat(Ink::solid(rgb)));
    canvas.stroke_circle((x, y), 14.0, IVORY, 5.0, Some((6.0, 8.66)));
    canvas.fill_circle((x, y), 11.0, Fill::Flat(IVORY));
    let size = if label.len() > 2 { 12.0 } else { 15.0 };
    canvas.label(Style::bold(size), Ink::solid(rgb), label, (x, y));
}

/// Draws the last results, newest first.
pub fn paint_history(canvas: &mut Canvas<'_>, moment: Moment) {
    let (_, y) = HISTORY.centre();
    let label = Style::bold(19.0).align(Align::Left).tracked(0.08);
    canvas.label(label, GOLD, "LAST RESULTS", (HISTORY.x, y));
    let newest = match moment.phase() {
        Phase::Open | Phase::Closed => moment.round - 1,
        Phase::Result | Phase::Settled => moment.round,
    };
    for index in 0..9 {
        let number = moment.result_of(newest - i64::from(index));
        let centre = (HISTORY.x + 201.0 + index as f32 * 51.5, y);
        let radius = if index == 0 { 24.0 } else { 21.5 };
        canvas.fill_circle(centre, radius, Fill::Flat(number_ink(number)));
        let (ink, width) = if index == 0 { (GOLD, 3.5) } else { (Ink(0xf6f0e1, 0.35), 1.5) };
        canvas.stroke_circle(centre, radius, ink, width, None);
        canvas.label(Style::bold(24.0), IVORY, &number.to_string(), centre);
    }
}
