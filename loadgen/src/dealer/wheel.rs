//! The turning wheel, painted straight into the I420 planes.
//!
//! Key idea: the rotor is rendered once into a *polar* texture (angle x radius).
//! For every pixel of the disc the texture row and column at rest are known, so a
//! frame is one table look-up a pixel with the rotation added to the column. The
//! texture is finer than the screen in both directions, hence no filtering.

use std::f32::consts::TAU;

use super::frame::{Area, Frame, chroma, luma};
use super::rounds::{Ball, Colour, POCKETS, WHEEL, colour};
use super::text::{Style, Typeface};

/// Centre of the wheel in design coordinates.
pub const CENTRE: (f32, f32) = (304.0, 374.0);
/// Radii in design units, from the outside in.
pub const RIM: f32 = 276.0;
/// Outer edge of the ball track.
pub const TRACK: f32 = 246.0;
/// Edge of the rotor.
pub const ROTOR: f32 = 214.0;
const NUMBERS: f32 = 170.0;
const POCKET: f32 = 130.0;
const TURRET_ARM: f32 = 74.0;
const BALL: f32 = 9.5;
const BALL_ON_TRACK: f32 = 230.0;
const BALL_IN_POCKET: f32 = 150.0;

/// Texture columns in a full turn; a power of two, so that turning is a mask.
const COLUMNS: usize = 4096;
/// Texture rows per real pixel of radius.
const ROWS_PER_PIXEL: f32 = 3.0;

const GOLD: [f32; 3] = [208.0, 170.0, 86.0];
const IVORY: [f32; 3] = [247.0, 241.0, 226.0];

/// A run of disc pixels on one line of a plane.
struct Span {
    /// Offset of the first pixel in the plane.
    at: usize,
    /// Index of its first texel in the look-up list.
    first: usize,
    /// Pixels in the run.
    count: usize,
}

/// Look-up of one plane resolution.
struct Disc {
    spans: Vec<Span>,
    /// Texture row and column at rest, per pixel.
    texels: Vec<(u16, u16)>,
}

/// The rotor and ball.
pub struct Wheel {
    scale: f32,
    luma: Vec<u8>,
    chroma: Vec<(u8, u8)>,
    full: Disc,
    half: Disc,
    /// Where the ball was drawn last, to be cleaned.
    last_ball: Option<Area>,
}

impl Wheel {
    /// Renders the rotor for a picture `scale` times the design size.
    pub fn new(face: &Typeface, scale: f32, width: usize) -> Self {
        let rows = (ROTOR * scale * ROWS_PER_PIXEL).ceil() as usize + 4;
        let rgb = paint_rotor(face, scale, rows);
        let luma_texture = rgb.iter().map(|&pixel| luma(pixel.map(i32::from))).collect();
        Self {
            scale,
            luma: luma_texture,
            chroma: halve(&rgb, rows),
            full: disc(scale, ROWS_PER_PIXEL, COLUMNS, width),
            half: disc(scale / 2.0, ROWS_PER_PIXEL, COLUMNS / 2, width / 2),
            last_ball: None,
        }
    }

    /// Paints the rotor at `angle` (radians clockwise) and the ball. `clean` is
    /// the picture without wheel and ball, to wipe the ball's last place.
    pub fn paint(&mut self, frame: &mut Frame, clean: &Frame, angle: f64, ball: Option<Ball>) {
        if let Some(area) = self.last_ball.take() {
            frame.put_area(clean, area);
        }
        let turn = (angle / std::f64::consts::TAU * COLUMNS as f64).rem_euclid(COLUMNS as f64);
        let turn = turn as usize;
        for span in &self.full.spans {
            let pixels = &mut frame.y[span.at..span.at + span.count];
            let texels = &self.full.texels[span.first..span.first + span.count];
            for (pixel, &(row, column)) in pixels.iter_mut().zip(texels) {
                let column = usize::from(column).wrapping_sub(turn) & (COLUMNS - 1);
                *pixel = self.luma[usize::from(row) * COLUMNS + column];
            }
        }
        let half = COLUMNS / 2;
        for span in &self.half.spans {
            let range = span.at..span.at + span.count;
            let texels = &self.half.texels[span.first..span.first + span.count];
            let planes = frame.u[range.clone()].iter_mut().zip(&mut frame.v[range]);
            for ((u, v), &(row, column)) in planes.zip(texels) {
                let column = usize::from(column).wrapping_sub(turn / 2) & (half - 1);
                (*u, *v) = self.chroma[usize::from(row) * half + column];
            }
        }
        if let Some(ball) = ball {
            self.paint_ball(frame, ball);
        }
    }

    fn paint_ball(&mut self, frame: &mut Frame, ball: Ball) {
        let s = self.scale;
        let radius =
            f64::from(BALL_ON_TRACK - (BALL_ON_TRACK - BALL_IN_POCKET) * ball.depth as f32);
        let x = CENTRE.0 * s + (radius * ball.angle.sin()) as f32 * s;
        let y = CENTRE.1 * s - (radius * ball.angle.cos()) as f32 * s;
        let (size, reach) = (BALL * s, (BALL + 6.0) * s);
        let bounds = (frame.width, frame.height);
        let area = Area::covering(x - reach, y - reach, x + reach, y + reach, bounds);
        for row in area.y..area.y + area.h {
            for column in area.x..area.x + area.w {
                let (dx, dy) = (column as f32 + 0.5 - x, row as f32 + 0.5 - y);
                let pixel = &mut frame.y[row * frame.width + column];
                let (sx, sy) = (dx - 2.5 * s, dy - 3.5 * s);
                let shadow = (1.15 - (sx * sx + sy * sy).sqrt() / size).clamp(0.0, 0.45);
                let inside = (size + 0.5 - (dx * dx + dy * dy).sqrt()).clamp(0.0, 1.0);
                // Lit from the upper left.
                let light = 222.0 - ((dx + dy) / size).clamp(-1.0, 1.4) * 26.0;
                let under = f32::from(*pixel);
                let under = under - (under - 16.0) * shadow;
                *pixel = (under + (light - under) * inside) as u8;
            }
        }
        for row in area.y / 2..(area.y + area.h) / 2 {
            for column in area.x / 2..(area.x + area.w) / 2 {
                let dx = (2 * column + 1) as f32 - x;
                let dy = (2 * row + 1) as f32 - y;
                let inside = ((size + 1.0 - (dx * dx + dy * dy).sqrt()) / 2.0).clamp(0.0, 1.0);
                let at = row * (frame.width / 2) + column;
                for plane in [&mut frame.u[at], &mut frame.v[at]] {
                    let value = f32::from(*plane);
                    *plane = (value + (128.0 - value) * inside) as u8;
                }
            }
        }
        self.last_ball = Some(area);
    }
}

/// The look-up list of a disc in a plane `width` pixels wide.
fn disc(scale: f32, rows_per_pixel: f32, columns: usize, width: usize) -> Disc {
    let (cx, cy, radius) = (CENTRE.0 * scale, CENTRE.1 * scale, ROTOR * scale);
    let mut disc = Disc { spans: Vec::new(), texels: Vec::new() };
    for y in (cy - radius).floor() as usize..=(cy + radius).ceil() as usize {
        let first = disc.texels.len();
        let mut start = None;
        for x in (cx - radius).floor() as usize..=(cx + radius).ceil() as usize {
            let (dx, dy) = (x as f32 + 0.5 - cx, y as f32 + 0.5 - cy);
            let distance = (dx * dx + dy * dy).sqrt();
            if distance >= radius {
                continue;
            }
            start.get_or_insert(y * width + x);
            let turn = dx.atan2(-dy).rem_euclid(TAU) / TAU;
            let column = (turn * columns as f32) as usize & (columns - 1);
            disc.texels.push(((distance * rows_per_pixel) as u16, column as u16));
        }
        if let Some(at) = start {
            disc.spans.push(Span { at, first, count: disc.texels.len() - first });
        }
    }
    disc
}

/// Chroma of 2x2 texel blocks.
fn halve(rgb: &[[u8; 3]], rows: usize) -> Vec<(u8, u8)> {
    let mut out = Vec::with_capacity(rows * COLUMNS / 4);
    for row in (0..rows).step_by(2) {
        for column in (0..COLUMNS).step_by(2) {
            let below = (row + 1).min(rows - 1);
            let block = [(row, column), (row, column + 1), (below, column), (below, column + 1)];
            let mut sum = [0i32; 3];
            for (r, c) in block {
                for (total, value) in sum.iter_mut().zip(rgb[r * COLUMNS + c]) {
                    *total += i32::from(value);
                }
            }
            out.push(chroma(sum.map(|total| total / 4)));
        }
    }
    out
}

/// The rotor in polar coordinates: rows from the centre out, columns clockwise.
fn paint_rotor(face: &Typeface, scale: f32, rows: usize) -> Vec<[u8; 3]> {
    let numbers = number_coverage(face, scale, rows);
    let mut rgb = Vec::with_capacity(rows * COLUMNS);
    for row in 0..rows {
        let radius = (row as f32 + 0.5) / ROWS_PER_PIXEL / scale;
        for column in 0..COLUMNS {
            let angle = (column as f32 + 0.5) / COLUMNS as f32 * TAU;
            let base = surface(radius, angle, scale);
            let ink = f32::from(numbers[row * COLUMNS + column]) / 255.0;
            rgb.push(mix(base, IVORY, ink).map(|value| value.clamp(0.0, 255.0) as u8));
        }
    }
    rgb
}

/// Colour of the rotor without the numbers.
fn surface(radius: f32, angle: f32, scale: f32) -> [f32; 3] {
    // Coverage of a line `width` wide at `distance` from its middle.
    let line = |distance: f32, width: f32| ((width / 2.0 - distance) * scale + 0.5).clamp(0.0, 1.0);
    let step = TAU / POCKETS as f32;
    let pocket = ((angle / step).round() as usize) % POCKETS;
    let base = if radius < POCKET {
        cone(radius, angle, scale)
    } else {
        let shade = if radius < NUMBERS {
            0.5 + 0.32 * (radius - POCKET) / (NUMBERS - POCKET)
        } else {
            0.94 + 0.06 * (radius - NUMBERS) / (ROTOR - NUMBERS)
        };
        // Frets stand half a pocket from the pocket centres.
        let distance = (angle / step + 0.5).rem_euclid(1.0);
        let distance = distance.min(1.0 - distance) * step * radius;
        mix(number_colour(WHEEL[pocket]).map(|c| c * shade), GOLD, 0.85 * line(distance, 1.8))
    };
    let ring = [(ROTOR - 3.0, 3.0), (NUMBERS, 2.4), (POCKET, 4.0)];
    let gold = ring.iter().map(|&(at, w)| line((radius - at).abs(), w)).fold(0.0, f32::max);
    let gleam = 0.82 + 0.22 * (angle * 2.0).cos();
    let edge = ((radius - (ROTOR - 1.5)) * scale).clamp(0.0, 1.0);
    mix(mix(base, GOLD.map(|c| c * gleam), gold), [18.0, 12.0, 8.0], edge)
}

/// The wooden cone with its turret.
fn cone(radius: f32, angle: f32, scale: f32) -> [f32; 3] {
    let soft = |distance: f32| (distance * scale + 0.5).clamp(0.0, 1.0);
    let depth = radius / POCKET;
    let gleam = 1.0 + 0.13 * (angle * 2.0 + 0.6).cos();
    let wood = mix([124.0, 72.0, 36.0], [58.0, 30.0, 16.0], depth * depth).map(|c| c * gleam);
    let quarter = (angle / (TAU / 4.0)).round() * (TAU / 4.0) - angle;
    let (along, across) = (radius * quarter.cos(), (radius * quarter.sin()).abs());
    let arm = soft(4.6 - across - 1.6 * along / TURRET_ARM).min(soft(TURRET_ARM - along));
    let knob = soft(8.0 - ((along - TURRET_ARM).powi(2) + across * across).sqrt());
    let hub = soft(25.0 - radius);
    let inlay = soft(1.0 - (radius - 100.0).abs()) * 0.55;
    let lit = 1.12 - 0.35 * (across / 8.0).min(1.0);
    let metal = mix(wood, GOLD.map(|c| c * lit), arm.max(knob).max(inlay));
    let dome = GOLD.map(|c| (c * (1.2 - 0.45 * radius / 25.0)).min(255.0));
    mix(mix(metal, dome, hub), [90.0, 66.0, 26.0], soft(1.2 - (radius - 15.0).abs()) * 0.6)
}

fn number_colour(number: u8) -> [f32; 3] {
    match colour(number) {
        Colour::Green => [14.0, 130.0, 72.0],
        Colour::Red => [190.0, 28.0, 40.0],
        Colour::Black => [26.0, 27.0, 31.0],
    }
}

/// Coverage of the numbers on the rotor, tops outward.
fn number_coverage(face: &Typeface, scale: f32, rows: usize) -> Vec<u8> {
    let mut coverage = vec![0u8; rows * COLUMNS];
    let middle = (NUMBERS + ROTOR - 3.0) / 2.0;
    let style = Style::bold(20.5 * scale * ROWS_PER_PIXEL);
    let cap = face.cap_height(style);
    // Texture columns per text pixel along the middle of the ring.
    let stretch = COLUMNS as f32 / (TAU * middle * scale * ROWS_PER_PIXEL);
    for (pocket, number) in WHEEL.iter().enumerate() {
        let centre = pocket as f32 / POCKETS as f32 * COLUMNS as f32;
        for glyph in face.line(style, &number.to_string(), 0.0, 0.0) {
            let height = glyph.coverage.len().checked_div(glyph.width).unwrap_or(0);
            for line in 0..height {
                let up = -(glyph.y + line as i32) as f32 - cap / 2.0;
                let row = (middle * scale * ROWS_PER_PIXEL + up) as usize;
                let from = (glyph.x as f32 * stretch).floor() as i32;
                let to = ((glyph.x + glyph.width as i32) as f32 * stretch).ceil() as i32;
                for column in from..to {
                    let source = (column as f32 / stretch) as i32 - glyph.x;
                    let Ok(source) = usize::try_from(source) else { continue };
                    if source >= glyph.width || row >= rows {
                        continue;
                    }
                    let column = (centre as i32 + column).rem_euclid(COLUMNS as i32) as usize;
                    let texel = &mut coverage[row * COLUMNS + column];
                    *texel = (*texel).max(glyph.coverage[line * glyph.width + source]);
                }
            }
        }
    }
    coverage
}

fn mix(from: [f32; 3], to: [f32; 3], share: f32) -> [f32; 3] {
    std::array::from_fn(|i| from[i] + (to[i] - from[i]) * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixel_at(frame: &Frame, radius: f32, angle: f32) -> u8 {
        let x = (CENTRE.0 + radius * angle.sin()) as usize;
        let y = (CENTRE.1 - radius * angle.cos()) as usize;
        frame.y[y * frame.width + x]
    }

    #[test]
    fn the_rotor_turns_clockwise_with_the_angle() {
        let face = Typeface::load().unwrap();
        let mut wheel = Wheel::new(&face, 1.0, 1280);
        let (mut still, clean) = (Frame::new(1280, 720), Frame::new(1280, 720));
        let mut turned = still.clone();
        wheel.paint(&mut still, &clean, 0.0, None);
        wheel.paint(&mut turned, &clean, f64::from(TAU / 4.0), None);
        let mut differences = 0u32;
        for step in 0..64 {
            let angle = step as f32 / 64.0 * TAU;
            let (a, b) =
                (pixel_at(&still, 150.0, angle), pixel_at(&turned, 150.0, angle + TAU / 4.0));
            differences += u32::from(a.abs_diff(b) > 24);
        }
        assert!(differences < 8, "{differences} of 64 samples moved differently");
    }

    #[test]
    fn the_ball_leaves_no_trace_on_the_track() {
        let face = Typeface::load().unwrap();
        let mut wheel = Wheel::new(&face, 0.5, 640);
        let clean = Frame::new(640, 360);
        let mut frame = clean.clone();
        let ball = |angle| Some(Ball { angle, depth: 0.0, flying: true });
        wheel.paint(&mut frame, &clean, 1.0, ball(0.3));
        wheel.paint(&mut frame, &clean, 1.0, ball(2.0));
        wheel.paint(&mut frame, &clean, 1.0, None);
        let mut want = clean.clone();
        wheel.paint(&mut want, &clean, 1.0, None);
        assert!(frame.y == want.y && frame.u == want.u && frame.v == want.v);
    }
}
