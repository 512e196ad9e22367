//! Text: two embedded weights of one typeface, rasterised by fontdue.
//!
//! Digits are set on a fixed advance (the widest digit) so that clocks and
//! counters do not jitter.

use fontdue::{Font, FontSettings};

use super::DealerError;

static MEDIUM: &[u8] = include_bytes!("../../assets/inter-medium.ttf");
static BOLD: &[u8] = include_bytes!("../../assets/inter-bold.ttf");

/// Weight of the typeface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Running text.
    Medium,
    /// Titles and numbers.
    Bold,
}

/// Which point of the text stands at the given x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Its left end.
    Left,
    /// Its middle.
    Centre,
    /// Its right end.
    Right,
}

/// How a line of text is set.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Weight of the typeface.
    pub weight: Weight,
    /// Size in pixels per em.
    pub size: f32,
    /// Extra space between letters, in ems.
    pub tracking: f32,
    /// Horizontal alignment.
    pub align: Align,
}

impl Style {
    /// Bold text of `size` pixels, centred.
    pub const fn bold(size: f32) -> Self {
        Self { weight: Weight::Bold, size, tracking: 0.0, align: Align::Centre }
    }

    /// Medium text of `size` pixels, centred.
    pub const fn medium(size: f32) -> Self {
        Self { weight: Weight::Medium, ..Self::bold(size) }
    }

    /// The same with another alignment.
    pub const fn align(self, align: Align) -> Self {
        Self { align, ..self }
    }

    /// The same with letters spaced out by `tracking` ems.
    pub const fn tracked(self, tracking: f32) -> Self {
        Self { tracking, ..self }
    }

    /// The same, larger or smaller by `factor`.
    pub fn scaled(self, factor: f32) -> Self {
        Self { size: self.size * factor, ..self }
    }
}

/// One glyph placed on a line.
pub struct Placed {
    /// Left edge of the bitmap.
    pub x: i32,
    /// Top edge of the bitmap.
    pub y: i32,
    /// Width of the bitmap in pixels.
    pub width: usize,
    /// Coverage, one byte a pixel, rows of `width`.
    pub coverage: Vec<u8>,
}

/// The loaded typeface.
pub struct Typeface {
    medium: Font,
    bold: Font,
}

impl Typeface {
    /// Loads the embedded fonts.
    ///
    /// # Errors
    /// [`DealerError::Font`] when an embedded file cannot be parsed.
    pub fn load() -> Result<Self, DealerError> {
        let load = |bytes: &[u8]| {
            Font::from_bytes(bytes, FontSettings::default()).map_err(DealerError::Font)
        };
        Ok(Self { medium: load(MEDIUM)?, bold: load(BOLD)? })
    }

    fn font(&self, weight: Weight) -> &Font {
        match weight {
            Weight::Medium => &self.medium,
            Weight::Bold => &self.bold,
        }
    }

    fn advance(&self, style: Style, letter: char) -> f32 {
        let font = self.font(style.weight);
        let width = |c| font.metrics(c, style.size).advance_width;
        let natural = if letter.is_ascii_digit() {
            ('0'..='9').map(width).fold(0.0, f32::max)
        } else {
            width(letter)
        };
        natural + style.tracking * style.size
    }

    /// Width of a line in pixels.
    pub fn width(&self, style: Style, text: &str) -> f32 {
        text.chars().map(|letter| self.advance(style, letter)).sum::<f32>()
            - style.tracking * style.size
    }

    /// Sets one line with its reference point at `x` and its baseline at `y`.
    pub fn line(&self, style: Style, text: &str, x: f32, y: f32) -> Vec<Placed> {
        let shift = match style.align {
            Align::Left => 0.0,
            Align::Centre => self.width(style, text) / 2.0,
            Align::Right => self.width(style, text),
        };
        let font = self.font(style.weight);
        let mut pen = x - shift;
        text.chars()
            .map(|letter| {
                let (metrics, coverage) = font.rasterize(letter, style.size);
                let advance = self.advance(style, letter);
                let slack = (advance - style.tracking * style.size - metrics.advance_width) / 2.0;
                let placed = Placed {
                    x: (pen + slack).round() as i32 + metrics.xmin,
                    y: y.round() as i32 - metrics.ymin - metrics.height as i32,
                    width: metrics.width,
                    coverage,
                };
                pen += advance;
                placed
            })
            .collect()
    }

    /// Height of a capital letter in pixels.
    pub fn cap_height(&self, style: Style) -> f32 {
        self.font(style.weight).metrics('H', style.size).height as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_share_one_advance() {
        let face = Typeface::load().unwrap();
        let style = Style::bold(34.0);
        assert_eq!(face.width(style, "11:11"), face.width(style, "88:88"));
        assert!(face.width(style.tracked(0.1), "NO MORE BETS") > face.width(style, "NO MORE BETS"));
    }

    #[test]
    fn every_letter_the_picture_uses_has_a_glyph() {
        let face = Typeface::load().unwrap();
        for letter in (' '..='~').chain("\u{b7}\u{2013}\u{2014}\u{2022}\u{2192}".chars()) {
            assert_ne!(face.bold.lookup_glyph_index(letter), 0, "{letter:?}");
        }
    }
}
