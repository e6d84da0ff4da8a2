//! Image files, good and bad.

use dsm_examples::image::{Image, read, spread, stretch_sequentially, synthetic, write};
use png::{BitDepth, ColorType, Encoder};

fn read_bytes(bytes: &[u8]) -> Result<Image, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, bytes).unwrap();
    let result = read(&path).map_err(|error| error.to_string());
    assert!(result.as_ref().err().is_none_or(|error| error.contains("image: ")), "names no file: {result:?}");
    result
}

fn png(color: ColorType, depth: BitDepth, data: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 2, 1);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == ColorType::Indexed {
        encoder.set_palette(vec![0, 0, 0, 255, 255, 255]);
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    file
}

/// What `data/rings.pgm` is, and how to make it again.
#[test]
fn the_image_of_the_repository_is_synthetic() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/rings.pgm");
    let pixels = synthetic(75, 53);
    assert_eq!(read(path.as_ref()).unwrap(), Image { width: 75, height: 53, pixels: pixels.clone() });
    let mut file = b"P5\n75 53\n255\n".to_vec();
    file.extend(pixels);
    assert!(std::fs::read(path).unwrap() == file);
}

#[test]
fn what_is_written_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let image = Image { width: 31, height: 17, pixels: synthetic(31, 17) };
    write(&dir.path().join("image.png"), &image).unwrap();
    assert_eq!(read(&dir.path().join("image.png")).unwrap(), image);
    let error = write(&dir.path().join("missing/image.png"), &image).unwrap_err();
    assert!(error.to_string().contains("missing/image.png"), "{error}");
}

#[test]
fn pgm_with_comments_and_as_numbers() {
    let expected = Image { width: 2, height: 2, pixels: vec![1, 2, 3, 10] };
    assert_eq!(read_bytes(b"P5\n# made by hand\n2 2 # wide, high\n255\n\x01\x02\x03\x0a"), Ok(expected.clone()));
    assert_eq!(read_bytes(b"P2 2 2 255 1 2\n3 # the last\n10"), Ok(expected));
}

#[test]
fn pgm_that_is_wrong() {
    for (file, why) in [
        (&b"P5 2 2 255 abc"[..], "cut short"),
        (b"P5 2 2 255", "cut short"),
        (b"P2 2 2 255 1 2 3", "no valid grey"),
        (b"P2 1 1 255 256", "above 255"),
        (b"P2 1 1 9 10", "above the maximum"),
        (b"P5 1 1 65535 ab", "8 bits"),
        (b"P5 0 1 255 ", "not possible"),
        (b"P5 99999999999 99999999999 255 a", "not possible"),
        (b"P5 99999999999 1 255 a", "cut short"),
        (b"P2 99999999999 1 255 1", "no valid grey"),
        (b"P5 wide", "no valid width"),
        (b"P5 # nothing", "no valid width"),
        (b"P6 1 1 255 abc", "neither PGM"),
        (b"", "neither PGM"),
    ] {
        let error = read_bytes(file).unwrap_err();
        assert!(error.contains(why), "{error:?} does not say {why:?}");
    }
}

#[test]
fn png_of_other_kinds_becomes_grey() {
    let grey = |color, depth, data: &[u8]| read_bytes(&png(color, depth, data)).unwrap().pixels;
    assert_eq!(grey(ColorType::Grayscale, BitDepth::Eight, &[7, 200]), [7, 200]);
    assert_eq!(grey(ColorType::Grayscale, BitDepth::One, &[0b0100_0000]), [0, 255]);
    assert_eq!(grey(ColorType::Grayscale, BitDepth::Sixteen, &[7, 0, 200, 0]), [7, 200]);
    assert_eq!(grey(ColorType::GrayscaleAlpha, BitDepth::Eight, &[7, 1, 200, 2]), [7, 200]);
    assert_eq!(grey(ColorType::Indexed, BitDepth::One, &[0b0100_0000]), [0, 255]);
    assert_eq!(grey(ColorType::Rgb, BitDepth::Eight, &[9, 9, 9, 255, 0, 0]), [9, 76]);
    assert_eq!(grey(ColorType::Rgba, BitDepth::Eight, &[0, 255, 0, 3, 0, 0, 255, 4]), [150, 29]);
}

#[test]
fn png_that_is_cut_short() {
    let whole = png(ColorType::Grayscale, BitDepth::Eight, &[7, 200]);
    for len in 4..whole.len() - 12 {
        assert!(read_bytes(&whole[..len]).is_err(), "{len} bytes of {}", whole.len());
    }
}

#[test]
fn greys_are_spread() {
    let mut pixels = [50, 100, 150];
    spread(&mut pixels, 50, 150);
    assert_eq!(pixels, [0, 128, 255]);
    assert_eq!(stretch_sequentially(&[0, 1, 255]), [0, 1, 255]);
    assert_eq!(stretch_sequentially(&[7, 7]), [7, 7], "uniform");
    assert!(stretch_sequentially(&[]).is_empty());
}

#[test]
fn the_synthetic_image_has_little_contrast() {
    for (width, height) in [(75, 53), (1, 1), (4000, 3)] {
        let pixels = synthetic(width, height);
        assert_eq!(pixels.len(), width * height);
        assert!(pixels.iter().all(|grey| (90..=144).contains(grey)));
    }
}
