//! A drawing surface in design coordinates (1280x720), whatever the real size.
//!
//! A thin layer over tiny-skia: the handful of shapes the table is made of, with
//! text. It is used for static parts once and for small regions when they change.

use tiny_skia::{
    Color, FillRule, GradientStop, LinearGradient, Paint, PathBuilder, Pixmap, Point,
    RadialGradient, Shader, SpreadMode, Stroke, StrokeDash, Transform,
};

use super::frame::Area;
use super::text::{Style, Typeface};

/// Width of the design space.
pub const DESIGN_WIDTH: f32 = 1280.0;

/// A colour as 0xRRGGBB with an opacity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ink(pub u32, pub f32);

impl Ink {
    /// The opaque colour 0xRRGGBB.
    pub const fn solid(rgb: u32) -> Self {
        Self(rgb, 1.0)
    }

    fn color(self) -> Color {
        let [_, r, g, b] = self.0.to_be_bytes();
        let alpha = (self.1.clamp(0.0, 1.0) * 255.0).round() as u8;
        Color::from_rgba8(r, g, b, alpha)
    }
}

/// A rectangle in design coordinates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rect {
    /// Left edge.
    pub x: f32,
    /// Top edge.
    pub y: f32,
    /// Width.
    pub w: f32,
    /// Height.
    pub h: f32,
}

impl Rect {
    /// A rectangle from its left, top, width and height.
    pub const fn new(x: f32, y: f32, w: f32, h: f32) -> Self {
        Self { x, y, w, h }
    }

    /// The rectangle shrunk by `by` on all sides.
    pub fn inset(self, by: f32) -> Self {
        Self::new(self.x + by, self.y + by, self.w - 2.0 * by, self.h - 2.0 * by)
    }

    /// Its centre.
    pub fn centre(self) -> (f32, f32) {
        (self.x + self.w / 2.0, self.y + self.h / 2.0)
    }
}

/// How the inside of a shape is filled.
#[derive(Clone, Copy)]
pub enum Fill {
    /// One colour.
    Flat(Ink),
    /// From top to bottom of the shape.
    Vertical(Ink, Ink),
    /// From a centre (x, y) to a radius.
    Radial(f32, f32, f32, Ink, Ink),
}

/// The surface.
pub struct Canvas<'a> {
    /// The pixels; opaque once the background is painted.
    pub pixmap: &'a mut Pixmap,
    /// The typeface.
    pub face: &'a Typeface,
}

impl Canvas<'_> {
    /// Real pixels per design unit.
    pub fn scale(&self) -> f32 {
        self.pixmap.width() as f32 / DESIGN_WIDTH
    }

    /// The pixels that a design rectangle covers.
    pub fn area(&self, rect: Rect) -> Area {
        let s = self.scale();
        let bounds = (self.pixmap.width() as usize, self.pixmap.height() as usize);
        let (right, bottom) = ((rect.x + rect.w) * s, (rect.y + rect.h) * s);
        Area::covering(rect.x * s, rect.y * s, right, bottom, bounds)
    }

    fn transform(&self) -> Transform {
        Transform::from_scale(self.scale(), self.scale())
    }

    fn fill_path(&mut self, path: Option<tiny_skia::Path>, fill: Fill) {
        let Some(path) = path else { return };
        let paint = Paint { shader: shader(fill, &path), anti_alias: true, ..Paint::default() };
        let transform = self.transform();
        self.pixmap.fill_path(&path, &paint, FillRule::Winding, transform, None);
    }

    fn stroke_path(&mut self, path: Option<tiny_skia::Path>, ink: Ink, stroke: &Stroke) {
        let Some(path) = path else { return };
        let shader = Shader::SolidColor(ink.color());
        let paint = Paint { shader, anti_alias: true, ..Paint::default() };
        let transform = self.transform();
        self.pixmap.stroke_path(&path, &paint, stroke, transform, None);
    }

    /// Fills a rectangle with corners of `radius`.
    pub fn fill_rect(&mut self, rect: Rect, radius: f32, fill: Fill) {
        self.fill_path(rounded(rect, radius), fill);
    }

    /// Outlines a rectangle with corners of `radius`.
    pub fn stroke_rect(&mut self, rect: Rect, radius: f32, ink: Ink, width: f32) {
        self.stroke_path(rounded(rect, radius), ink, &Stroke { width, ..Stroke::default() });
    }

    /// Fills a circle.
    pub fn fill_circle(&mut self, (x, y): (f32, f32), radius: f32, fill: Fill) {
        self.fill_path(PathBuilder::from_circle(x, y, radius), fill);
    }

    /// Outlines a circle, dashed when `dash` gives the lengths of dash and gap.
    pub fn stroke_circle(
        &mut self,
        (x, y): (f32, f32),
        radius: f32,
        ink: Ink,
        width: f32,
        dash: Option<(f32, f32)>,
    ) {
        let dash = dash.and_then(|(on, off)| StrokeDash::new(vec![on, off], 0.0));
        let stroke = Stroke { width, dash, ..Stroke::default() };
        self.stroke_path(PathBuilder::from_circle(x, y, radius), ink, &stroke);
    }

    /// Draws the first `share` (0 to 1) of a circle, clockwise from the top.
    pub fn arc(&mut self, (x, y): (f32, f32), radius: f32, share: f32, ink: Ink, width: f32) {
        let steps = (share.clamp(0.0, 1.0) * 90.0).ceil() as usize;
        if steps == 0 {
            return;
        }
        let mut path = PathBuilder::new();
        for step in 0..=steps {
            let angle = share * std::f32::consts::TAU * step as f32 / steps as f32;
            let point = (x + radius * angle.sin(), y - radius * angle.cos());
            match step {
                0 => path.move_to(point.0, point.1),
                _ => path.line_to(point.0, point.1),
            }
        }
        let line_cap = tiny_skia::LineCap::Round;
        self.stroke_path(path.finish(), ink, &Stroke { width, line_cap, ..Stroke::default() });
    }

    /// Fills a polygon.
    pub fn polygon(&mut self, points: &[(f32, f32)], fill: Fill) {
        let mut path = PathBuilder::new();
        for (index, &(x, y)) in points.iter().enumerate() {
            match index {
                0 => path.move_to(x, y),
                _ => path.line_to(x, y),
            }
        }
        path.close();
        self.fill_path(path.finish(), fill);
    }

    /// Writes one line of text, its reference point at (`x`, `y` = baseline).
    pub fn text(&mut self, style: Style, ink: Ink, text: &str, x: f32, y: f32) {
        let s = self.scale();
        let [_, r, g, b] = ink.0.to_be_bytes();
        let (width, height) = (self.pixmap.width() as i32, self.pixmap.height() as i32);
        for glyph in self.face.line(style.scaled(s), text, x * s, y * s) {
            let data = self.pixmap.data_mut();
            for (index, &coverage) in glyph.coverage.iter().enumerate() {
                let px = glyph.x + (index % glyph.width) as i32;
                let py = glyph.y + (index / glyph.width) as i32;
                if coverage == 0 || px < 0 || py < 0 || px >= width || py >= height {
                    continue;
                }
                let at = (py * width + px) as usize * 4;
                let alpha = f32::from(coverage) / 255.0 * ink.1;
                for (to, from) in data[at..at + 3].iter_mut().zip([r, g, b]) {
                    let mixed = f32::from(*to) + (f32::from(from) - f32::from(*to)) * alpha;
                    *to = mixed.round() as u8;
                }
            }
        }
    }

    /// Writes one line of text vertically centred on `y`, by its capitals.
    pub fn label(&mut self, style: Style, ink: Ink, text: &str, (x, y): (f32, f32)) {
        let cap = self.face.cap_height(style.scaled(self.scale())) / self.scale();
        self.text(style, ink, text, x, y + cap / 2.0);
    }
}

fn rounded(rect: Rect, radius: f32) -> Option<tiny_skia::Path> {
    let Rect { x, y, w, h } = rect;
    let r = radius.min(w / 2.0).min(h / 2.0);
    if r <= 0.0 {
        return Some(PathBuilder::from_rect(tiny_skia::Rect::from_xywh(x, y, w, h)?));
    }
    // Length of a cubic's handle for a quarter circle.
    let k = r * 0.5523;
    let (right, bottom) = (x + w, y + h);
    let mut path = PathBuilder::new();
    path.move_to(x + r, y);
    path.line_to(right - r, y);
    path.cubic_to(right - r + k, y, right, y + r - k, right, y + r);
    path.line_to(right, bottom - r);
    path.cubic_to(right, bottom - r + k, right - r + k, bottom, right - r, bottom);
    path.line_to(x + r, bottom);
    path.cubic_to(x + r - k, bottom, x, bottom - r + k, x, bottom - r);
    path.line_to(x, y + r);
    path.cubic_to(x, y + r - k, x + r - k, y, x + r, y);
    path.close();
    path.finish()
}

fn shader(fill: Fill, path: &tiny_skia::Path) -> Shader<'static> {
    let stops = |from: Ink, to: Ink| {
        vec![GradientStop::new(0.0, from.color()), GradientStop::new(1.0, to.color())]
    };
    let (gradient, fallback) = match fill {
        Fill::Flat(ink) => return Shader::SolidColor(ink.color()),
        Fill::Vertical(top, bottom) => {
            let bounds = path.bounds();
            let (start, end) = (
                Point::from_xy(bounds.left(), bounds.top()),
                Point::from_xy(bounds.left(), bounds.bottom()),
            );
            let (pad, identity) = (SpreadMode::Pad, Transform::identity());
            (LinearGradient::new(start, end, stops(top, bottom), pad, identity), top)
        }
        Fill::Radial(x, y, radius, inner, outer) => {
            let centre = Point::from_xy(x, y);
            let (pad, identity) = (SpreadMode::Pad, Transform::identity());
            let stops = stops(inner, outer);
            (RadialGradient::new(centre, 0.0, centre, radius, stops, pad, identity), inner)
        }
    };
    gradient.unwrap_or(Shader::SolidColor(fallback.color()))
}
