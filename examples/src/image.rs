//! What `contrast` needs to know about grey images: files, greys, and one to play with. Nothing is shared here.

use png::{BitDepth, ColorType, Decoder, Encoder, Transformations};
use std::error::Error;
use std::io::Cursor;
use std::path::Path;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A grey image, row by row, 0 is black and 255 is white.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// All pixels: `width * height`.
    pub pixels: Vec<u8>,
}

/// Spreads greys that go from `darkest` to `brightest` over all there are. A uniform image stays as it is.
pub fn spread(pixels: &mut [u8], darkest: u8, brightest: u8) {
    if darkest >= brightest {
        return;
    }
    let range = u32::from(brightest - darkest);
    for pixel in pixels {
        *pixel = ((u32::from(*pixel - darkest) * 255 + range / 2) / range) as u8;
    }
}

/// The result that `contrast` must come to, however many take part.
#[must_use]
pub fn stretch_sequentially(pixels: &[u8]) -> Vec<u8> {
    let mut pixels = pixels.to_vec();
    if let (Some(&darkest), Some(&brightest)) = (pixels.iter().min(), pixels.iter().max()) {
        spread(&mut pixels, darkest, brightest);
    }
    pixels
}

/// The pixels of an image of any size that has little contrast: faint rings in fog that lifts towards the right.
#[must_use]
pub fn synthetic(width: usize, height: usize) -> Vec<u8> {
    let grey = |x: usize, y: usize| {
        let (dx, dy) = (x.abs_diff(width / 2), y.abs_diff(height / 3));
        let ring = (8 * (dx * dx + dy * dy) / (width * height)) % 2;
        90 + 40 * x / width + 15 * ring
    };
    (0..height).flat_map(|y| (0..width).map(move |x| grey(x, y) as u8)).collect()
}

/// Reads a PGM (`P2` or `P5`) or PNG file. Colours become greys, and 16 bits become 8.
///
/// # Errors
/// When it cannot be read, or is something else; the text names the file.
pub fn read(path: &Path) -> Result<Image> {
    let name = |error: Box<dyn Error>| format!("{}: {error}", path.display());
    let file = std::fs::read(path).map_err(|error| name(error.into()))?;
    let image = if file.starts_with(b"P2") || file.starts_with(b"P5") {
        parse_pgm(&file)
    } else if file.starts_with(b"\x89PNG") {
        parse_png(&file)
    } else {
        Err("neither PGM (P2, P5) nor PNG".into())
    };
    Ok(image.map_err(name)?)
}

/// Writes a PNG file of 8-bit greys.
///
/// # Errors
/// When it cannot be written; the text names the file.
pub fn write(path: &Path, image: &Image) -> Result<()> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, u32::try_from(image.width)?, u32::try_from(image.height)?);
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&image.pixels)?;
    writer.finish()?;
    Ok(std::fs::write(path, file).map_err(|error| format!("{}: {error}", path.display()))?)
}

fn parse_png(file: &[u8]) -> Result<Image> {
    let mut decoder = Decoder::new(Cursor::new(file));
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let mut samples = vec![0; reader.output_buffer_size().ok_or("too large")?];
    let info = reader.next_frame(&mut samples)?;
    samples.truncate(info.buffer_size());
    // Grey, or red, green and blue, as much of each as it is bright. Behind them there may be opacity, which is left out.
    let grey = |sample: &[u8]| match *sample {
        [red, green, blue, ..] => {
            ((u32::from(red) * 299 + u32::from(green) * 587 + u32::from(blue) * 114 + 500) / 1000) as u8
        }
        _ => sample[0],
    };
    let pixels = samples.chunks_exact(info.color_type.samples()).map(grey).collect();
    Ok(Image { width: info.width as usize, height: info.height as usize, pixels })
}

/// `P5 WIDTH HEIGHT MAXIMUM`, one blank, bytes; or `P2` and numbers. `#` begins a comment that ends with the line.
fn parse_pgm(file: &[u8]) -> Result<Image> {
    let mut rest = &file[2..];
    let mut number = |what: &str| {
        while let Some(first) = rest.first().filter(|byte| byte.is_ascii_whitespace() || **byte == b'#') {
            let skip = if *first == b'#' { rest.iter().position(|byte| *byte == b'\n') } else { Some(1) };
            rest = &rest[skip.unwrap_or(rest.len())..];
        }
        let (digits, behind) = rest.split_at(rest.iter().take_while(|byte| byte.is_ascii_digit()).count());
        rest = behind;
        let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<usize>().ok());
        number.ok_or_else(|| format!("there is no valid {what} in this PGM"))
    };
    let (width, height, maximum) = (number("width")?, number("height")?, number("maximum")?);
    let len = width.checked_mul(height).filter(|len| *len > 0);
    let len = len.ok_or_else(|| format!("{width} x {height} pixels are not possible"))?;
    if !(1..=255).contains(&maximum) {
        return Err(format!("greys up to {maximum}: only 8 bits (up to 255) are known").into());
    }
    let pixels = if file.starts_with(b"P2") {
        let pixel = |_| Ok(u8::try_from(number("grey")?).map_err(|_| "a grey is above 255")?);
        (0..len).map(pixel).collect::<Result<Vec<u8>>>()?
    } else {
        rest.get(1..).and_then(|pixels| pixels.get(..len)).ok_or("it is cut short")?.to_vec()
    };
    if pixels.iter().any(|pixel| usize::from(*pixel) > maximum) {
        return Err(format!("a grey is above the maximum, {maximum}").into());
    }
    Ok(Image { width, height, pixels })
}
