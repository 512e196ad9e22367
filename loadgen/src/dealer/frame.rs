//! The picture as the encoder takes it: I420, BT.709, limited range.
//!
//! Drawing happens in RGBA only where something changes rarely; those regions
//! are converted here. What changes every frame is written straight into the
//! planes.

use openh264::formats::YUVSource;
use tiny_skia::Pixmap;

/// A rectangle in pixels with even edges, so that it covers whole chroma samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Left edge.
    pub x: usize,
    /// Top edge.
    pub y: usize,
    /// Width.
    pub w: usize,
    /// Height.
    pub h: usize,
}

impl Area {
    /// The smallest even-edged area inside `width` x `height` that covers the rectangle.
    pub fn covering(left: f32, top: f32, right: f32, bottom: f32, bounds: (usize, usize)) -> Self {
        let down = |v: f32, max: usize| (v.max(0.0).floor() as usize).min(max) & !1;
        let up = |v: f32, max: usize| ((v.max(0.0).ceil() as usize + 1) & !1).min(max);
        let (x, y) = (down(left, bounds.0), down(top, bounds.1));
        let (right, bottom) = (up(right, bounds.0), up(bottom, bounds.1));
        Self { x, y, w: right.saturating_sub(x), h: bottom.saturating_sub(y) }
    }
}

/// A planar 4:2:0 picture; both dimensions are even.
#[derive(Clone)]
pub struct Frame {
    /// Luma width in pixels.
    pub width: usize,
    /// Luma height in pixels.
    pub height: usize,
    /// Luma plane, `width` bytes a row.
    pub y: Vec<u8>,
    /// Blue-difference plane, `width / 2` bytes a row.
    pub u: Vec<u8>,
    /// Red-difference plane, `width / 2` bytes a row.
    pub v: Vec<u8>,
}

impl Frame {
    /// A black picture.
    pub fn new(width: usize, height: usize) -> Self {
        let (luma, chroma) = (width * height, width * height / 4);
        Self { width, height, y: vec![16; luma], u: vec![128; chroma], v: vec![128; chroma] }
    }

    /// Converts `area` of an opaque pixmap of the same size into the planes.
    pub fn put_pixmap(&mut self, pixmap: &Pixmap, area: Area) {
        let (data, stride) = (pixmap.data(), self.width * 4);
        for row in (area.y..area.y + area.h).step_by(2) {
            for column in (area.x..area.x + area.w).step_by(2) {
                let mut sum = [0i32; 3];
                for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                    let at = (row + dy) * stride + (column + dx) * 4;
                    let rgb = [data[at], data[at + 1], data[at + 2]].map(i32::from);
                    self.y[(row + dy) * self.width + column + dx] = luma(rgb);
                    for (total, value) in sum.iter_mut().zip(rgb) {
                        *total += value;
                    }
                }
                let (u, v) = chroma(sum.map(|total| total / 4));
                let at = row / 2 * (self.width / 2) + column / 2;
                (self.u[at], self.v[at]) = (u, v);
            }
        }
    }

    /// Copies `area` from another picture of the same size.
    pub fn put_area(&mut self, from: &Self, area: Area) {
        for row in area.y..area.y + area.h {
            let at = row * self.width + area.x;
            self.y[at..at + area.w].copy_from_slice(&from.y[at..at + area.w]);
        }
        for row in area.y / 2..(area.y + area.h) / 2 {
            let at = row * (self.width / 2) + area.x / 2;
            self.u[at..at + area.w / 2].copy_from_slice(&from.u[at..at + area.w / 2]);
            self.v[at..at + area.w / 2].copy_from_slice(&from.v[at..at + area.w / 2]);
        }
    }

    /// Copies a whole small picture to an even position (`x`, `y`).
    pub fn put_tile(&mut self, tile: &Self, x: usize, y: usize) {
        let half = (self.width / 2, tile.width / 2);
        for (row, line) in tile.y.chunks_exact(tile.width).enumerate() {
            let at = (y + row) * self.width + x;
            self.y[at..at + tile.width].copy_from_slice(line);
        }
        let planes = [(&mut self.u, &tile.u), (&mut self.v, &tile.v)];
        for (plane, from) in planes {
            for (row, line) in from.chunks_exact(half.1).enumerate() {
                let at = (y / 2 + row) * half.0 + x / 2;
                plane[at..at + half.1].copy_from_slice(line);
            }
        }
    }

    /// Cuts `area` out as a small picture.
    pub fn tile(&self, area: Area) -> Self {
        let mut tile = Self::new(area.w, area.h);
        for row in 0..area.h {
            let at = (area.y + row) * self.width + area.x;
            tile.y[row * area.w..][..area.w].copy_from_slice(&self.y[at..at + area.w]);
        }
        for row in 0..area.h / 2 {
            let at = (area.y / 2 + row) * (self.width / 2) + area.x / 2;
            let (to, count) = (row * area.w / 2, area.w / 2);
            tile.u[to..][..count].copy_from_slice(&self.u[at..at + count]);
            tile.v[to..][..count].copy_from_slice(&self.v[at..at + count]);
        }
        tile
    }

    /// The picture as interleaved 8-bit RGB, for looking at it.
    pub fn to_rgb(&self) -> Vec<u8> {
        let mut rgb = Vec::with_capacity(self.width * self.height * 3);
        for row in 0..self.height {
            for column in 0..self.width {
                let at = row / 2 * (self.width / 2) + column / 2;
                let y = 1.164 * (f32::from(self.y[row * self.width + column]) - 16.0);
                let (u, v) = (f32::from(self.u[at]) - 128.0, f32::from(self.v[at]) - 128.0);
                let pixel = [y + 1.793 * v, y - 0.213 * u - 0.533 * v, y + 2.112 * u];
                rgb.extend(pixel.map(|value| value.round().clamp(0.0, 255.0) as u8));
            }
        }
        rgb
    }
}

impl YUVSource for Frame {
    fn dimensions(&self) -> (usize, usize) {
        (self.width, self.height)
    }
    fn strides(&self) -> (usize, usize, usize) {
        (self.width, self.width / 2, self.width / 2)
    }
    fn y(&self) -> &[u8] {
        &self.y
    }
    fn u(&self) -> &[u8] {
        &self.u
    }
    fn v(&self) -> &[u8] {
        &self.v
    }
}

/// BT.709 limited-range luma of full-range RGB, in 16.16 fixed point.
pub fn luma([r, g, b]: [i32; 3]) -> u8 {
    (16 + ((11_966 * r + 40_254 * g + 4_064 * b + 32_768) >> 16)) as u8
}

/// BT.709 limited-range chroma (U, V) of full-range RGB, in 16.16 fixed point.
pub fn chroma([r, g, b]: [i32; 3]) -> (u8, u8) {
    let u = 128 + ((-6_596 * r - 22_189 * g + 28_784 * b + 32_768) >> 16);
    let v = 128 + ((28_784 * r - 26_145 * g - 2_639 * b + 32_768) >> 16);
    (u.clamp(16, 240) as u8, v.clamp(16, 240) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_has_neutral_chroma_and_limited_range() {
        assert_eq!((luma([0; 3]), luma([255; 3])), (16, 235));
        assert_eq!((chroma([0; 3]), chroma([255; 3])), ((128, 128), (128, 128)));
        assert_eq!(luma([255, 0, 0]), 63);
    }

    #[test]
    fn tiles_come_back_as_they_were_cut() {
        let mut frame = Frame::new(32, 16);
        frame.y.iter_mut().enumerate().for_each(|(i, y)| *y = i as u8);
        frame.u.iter_mut().enumerate().for_each(|(i, u)| *u = i as u8);
        let tile = frame.tile(Area { x: 4, y: 2, w: 8, h: 6 });
        let mut other = Frame::new(32, 16);
        other.put_tile(&tile, 4, 2);
        assert_eq!(other.tile(Area { x: 4, y: 2, w: 8, h: 6 }).y, tile.y);
        assert_eq!((other.y[2 * 32 + 4], other.u[16 + 2]), (frame.y[2 * 32 + 4], frame.u[16 + 2]));
    }

    #[test]
    fn areas_are_even_and_inside() {
        let area = Area::covering(3.2, -4.0, 700.5, 9.1, (640, 360));
        assert_eq!(area, Area { x: 2, y: 0, w: 638, h: 10 });
    }
}
