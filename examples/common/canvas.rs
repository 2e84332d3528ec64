//! A bitmap that sets its text itself.
//!
//! The letters come with the program, since a fresh system has no fonts: Ubuntu Light, as shipped
//! in the crate `epaint_default_fonts` under the Ubuntu font licence. Plotters' own way with such
//! a font drops the space on the left of each letter and rounds every position, which makes words
//! run together.

use std::path::Path;

use ab_glyph::{Font, FontRef, PxScaleFont, ScaleFont, point};
use anyhow::{Result, anyhow};
use plotters::prelude::BitMapBackend;
use plotters::style::{FontStyle, register_font};
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
};

/// The name under which texts ask for the letters.
pub(crate) const FONT: &str = "sans-serif";

/// [`BitMapBackend`] with another `draw_text`.
pub(crate) struct Canvas<'a> {
    bitmap: BitMapBackend<'a>,
    font: FontRef<'static>,
}

type ErrorOf<B> = DrawingErrorKind<<B as DrawingBackend>::ErrorType>;
type Outcome<'a, T = ()> = std::result::Result<T, ErrorOf<BitMapBackend<'a>>>;

impl<'a> Canvas<'a> {
    /// A picture that is written to `path` when it is presented.
    pub(crate) fn new(path: &'a Path, size: (u32, u32)) -> Result<Self> {
        // Plotters measures legends with a font of its own by that name.
        register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
            .map_err(|_| anyhow!("the built-in font is damaged"))?;
        Ok(Self {
            bitmap: BitMapBackend::new(path, size),
            font: FontRef::try_from_slice(epaint_default_fonts::UBUNTU_LIGHT)?,
        })
    }

    fn scaled(&self, size: f64) -> PxScaleFont<&FontRef<'static>> {
        self.font.as_scaled(size as f32)
    }
}

/// The sum of the advances, kerned.
fn width(font: &PxScaleFont<&FontRef<'static>>, text: &str) -> f32 {
    let ids: Vec<_> = text.chars().map(|c| font.glyph_id(c)).collect();
    let advances: f32 = ids.iter().map(|&id| font.h_advance(id)).sum();
    let kerns: f32 = ids.windows(2).map(|pair| font.kern(pair[0], pair[1])).sum();
    advances + kerns
}

impl<'a> DrawingBackend for Canvas<'a> {
    type ErrorType = <BitMapBackend<'a> as DrawingBackend>::ErrorType;

    fn get_size(&self) -> (u32, u32) {
        self.bitmap.get_size()
    }

    fn ensure_prepared(&mut self) -> Outcome<'a> {
        self.bitmap.ensure_prepared()
    }

    fn present(&mut self) -> Outcome<'a> {
        self.bitmap.present()
    }

    fn draw_pixel(&mut self, point: BackendCoord, color: BackendColor) -> Outcome<'a> {
        self.bitmap.draw_pixel(point, color)
    }

    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Outcome<'a> {
        self.bitmap.draw_line(from, to, style)
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        upper_left: BackendCoord,
        bottom_right: BackendCoord,
        style: &S,
        fill: bool,
    ) -> Outcome<'a> {
        self.bitmap.draw_rect(upper_left, bottom_right, style, fill)
    }

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        position: BackendCoord,
    ) -> Outcome<'a> {
        let font = self.scaled(style.size());
        let left = match style.anchor().h_pos {
            HPos::Left => 0.0,
            HPos::Center => -width(&font, text) / 2.0,
            HPos::Right => -width(&font, text),
        };
        let baseline = match style.anchor().v_pos {
            VPos::Top => font.ascent(),
            VPos::Center => (font.ascent() + font.descent()) / 2.0,
            VPos::Bottom => font.descent(),
        };
        let mut pixels = Vec::new();
        let mut pen = point(left, baseline.round());
        let mut previous = None;
        for letter in text.chars() {
            let mut glyph = font.scaled_glyph(letter);
            pen.x += previous.map_or(0.0, |id| font.kern(id, glyph.id));
            previous = Some(glyph.id);
            glyph.position = pen;
            pen.x += font.h_advance(glyph.id);
            if let Some(outline) = font.outline_glyph(glyph) {
                let corner = outline.px_bounds().min;
                outline.draw(|x, y, coverage| {
                    pixels.push((
                        corner.x as i32 + x as i32,
                        corner.y as i32 + y as i32,
                        coverage,
                    ));
                });
            }
        }
        let (turn, color, (width, height)) = (style.transform(), style.color(), self.get_size());
        for (x, y, coverage) in pixels {
            let (x, y) = turn.transform(x, y);
            let (x, y) = (position.0 + x, position.1 + y);
            if (0..width as i32).contains(&x) && (0..height as i32).contains(&y) {
                self.draw_pixel((x, y), color.mix(f64::from(coverage.min(1.0))))?;
            }
        }
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Outcome<'a, (u32, u32)> {
        let font = self.scaled(style.size());
        Ok((
            width(&font, text).ceil() as u32,
            font.height().ceil() as u32,
        ))
    }
}
