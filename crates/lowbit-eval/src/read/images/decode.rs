//! PNG and JPEG files as 8-bit pixels.

use crate::error::Error;
use lowbit_base::file;
use png::{ColorType, Transformations};
use std::io::Cursor;
use std::path::Path;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Bytes of a file at most.
const MOST: u64 = 256 << 20;
/// Pixels of an image at most, and of a side.
const PIXELS: usize = 1 << 27;
const SIDE: usize = 1 << 16;
/// How a PNG file begins (RFC 2083), and a JPEG file (ITU-T T.81).
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
const JPEG: &[u8] = b"\xff\xd8\xff";

/// Pixels of an image, `[height, width, channels]`.
pub(super) struct Image {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub pixels: Vec<u8>,
}

/// What the header of an image tells.
pub(super) struct Facts {
    pub height: usize,
    pub width: usize,
    pub is_grey: bool,
}

impl Image {
    /// The same in grey (1) or in colours (3), as Pillow converts: transparency is left out, grey is the luma of ITU-R 601-2.
    pub(super) fn with_colours(self, colours: usize) -> Image {
        let luma = |rgb: &[u8]| {
            let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
            ((r * 19_595 + g * 38_470 + b * 7_471 + 0x8000) >> 16) as u8
        };
        let each = self.pixels.chunks_exact(self.channels);
        let pixels = match (self.channels, colours) {
            (1 | 2, 1) => each.map(|pixel| pixel[0]).collect(),
            (1 | 2, _) => each.flat_map(|pixel| [pixel[0]; 3]).collect(),
            (_, 1) => each.map(luma).collect(),
            (_, _) => each.flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        };
        Image { channels: colours, pixels, ..self }
    }
}

/// Size and colours of an image, from its header.
///
/// # Errors
/// As [`image`].
pub(super) fn facts(path: &Path) -> Result<Facts, Error> {
    let content = read(path)?;
    if content.starts_with(PNG) {
        let reader = png::Decoder::new(Cursor::new(&content)).read_info().map_err(|e| damaged(path, &e))?;
        let info = reader.info();
        let is_grey = matches!(info.color_type, ColorType::Grayscale | ColorType::GrayscaleAlpha);
        return checked(path, info.height as usize, info.width as usize).map(|(height, width)| Facts {
            height,
            width,
            is_grey,
        });
    }
    let mut decoder = jpeg(&content);
    decoder.decode_headers().map_err(|e| damaged(path, &e))?;
    let is_grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let (width, height) = decoder.dimensions().unwrap_or_default();
    checked(path, height, width).map(|(height, width)| Facts { height, width, is_grey })
}

/// Decodes an image.
///
/// # Errors
/// When the file is no PNG or JPEG image, is damaged or cut off, or is too large; names it.
pub(super) fn image(path: &Path) -> Result<Image, Error> {
    let content = read(path)?;
    if content.starts_with(PNG) { of_png(path, &content) } else { of_jpeg(path, &content) }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let content = file::read(path, MOST)?;
    match content.starts_with(PNG) || content.starts_with(JPEG) {
        true => Ok(content),
        false => Err(Error::input(path, "is no PNG or JPEG image: convert it, or remove it")),
    }
}

fn damaged(path: &Path, e: &dyn std::fmt::Display) -> Error {
    Error::input(path, format!("is damaged, or no such image as is read: {e}; fetch it again, or remove it"))
}

fn checked(path: &Path, height: usize, width: usize) -> Result<(usize, usize), Error> {
    let fits = (1..=SIDE).contains(&height) && (1..=SIDE).contains(&width) && height * width <= PIXELS;
    let text = || format!("is {height} x {width} pixels: 1 to {SIDE} a side and {PIXELS} in all are read");
    if fits { Ok((height, width)) } else { Err(Error::input(path, text())) }
}

fn of_png(path: &Path, content: &[u8]) -> Result<Image, Error> {
    let wrong = |e: png::DecodingError| damaged(path, &e);
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(content), png::Limits { bytes: 4 * PIXELS });
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(wrong)?;
    let info = reader.info();
    let (height, width) = checked(path, info.height as usize, info.width as usize)?;
    let (kind, _) = reader.output_color_type();
    let size = reader.output_buffer_size().ok_or_else(|| damaged(path, &"its size is beyond memory"))?;
    let mut pixels = vec![0; size];
    reader.next_frame(&mut pixels).map_err(wrong)?;
    Ok(Image { height, width, channels: kind.samples(), pixels })
}

fn jpeg(content: &[u8]) -> JpegDecoder<Cursor<&[u8]>> {
    let options = DecoderOptions::default().set_strict_mode(true).set_max_width(SIDE).set_max_height(SIDE);
    JpegDecoder::new_with_options(Cursor::new(content), options)
}

fn of_jpeg(path: &Path, content: &[u8]) -> Result<Image, Error> {
    let mut decoder = jpeg(content);
    decoder.decode_headers().map_err(|e| damaged(path, &e))?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    let (height, width) = checked(path, height, width)?;
    let (space, channels) = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => (ColorSpace::Luma, 1),
        _ => (ColorSpace::RGB, 3),
    };
    let options = decoder.options().jpeg_set_out_colorspace(space);
    decoder.set_options(options);
    let pixels = decoder.decode().map_err(|e| damaged(path, &e))?;
    match pixels.len() == height * width * channels {
        true => Ok(Image { height, width, channels, pixels }),
        false => Err(damaged(path, &"its pixels do not fill its size")),
    }
}
