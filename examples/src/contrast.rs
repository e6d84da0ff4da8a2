//! Stretches the contrast of a grey image: its darkest grey becomes black, its brightest white, and the others are
//! spread between them. Reads PGM or PNG, writes PNG.
//!
//! Rank 0 puts the image into an array that all share. Every rank looks through its chunk, and together they find the
//! darkest and the brightest grey. Then each works on its chunk through holes: scopes in which the pixels are plain
//! `&mut [u8]`, and from which what has changed goes to the others in bulk. At last rank 0 writes the result.
//!
//! ```sh
//! cargo run -p dsm-examples --bin contrast -- examples/data/rings.pgm /tmp/rings.png
//! dsm run -n 4 --hosts 2 -- target/debug/contrast examples/data/rings.pgm /tmp/rings.png
//! ```

use dsm::prelude::*;
use dsm_examples::image::{self, Image};
use std::error::Error;
use std::path::Path;

// For who wants to check the result, or has no image at hand.
pub use dsm_examples::image::{stretch_sequentially, synthetic};

/// In how many holes a rank does its chunk: who watches [`Progress`] sees it go on.
const BANDS: usize = 16;

/// What all know of the image, as `progress` in the session. Whoever is joined may look how far it is.
#[dsm::shared]
pub struct Progress {
    /// Pixels in a row.
    pub width: u64,
    /// Rows.
    pub height: u64,
    /// Pixels that are stretched.
    pub done: u64,
    /// The darkest grey, once all have looked.
    pub darkest: u32,
    /// The brightest.
    pub brightest: u32,
}

/// The program: `contrast IN OUT`.
///
/// # Errors
/// When the arguments are not two, and as [`stretch`].
pub fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [input, output] = &arguments[..] else {
        return Err("usage: contrast IN OUT (IN: PGM or PNG, OUT: PNG)".into());
    };
    let session = Session::join("contrast")?;
    let found = stretch(&session, input.as_ref(), output.as_ref())?;
    if session.rank() == 0 {
        let Progress { width, height, darkest, brightest, .. } = found;
        println!("{width} x {height} pixels: stretched the greys from {darkest} to {brightest}");
    }
    Ok(())
}

/// To be called by every rank of the session, for one image. Returns when the result is written.
///
/// # Errors
/// When the image cannot be read or written (rank 0 says so; to the others the barrier is broken); when the session
/// ends.
pub fn stretch(session: &Session, input: &Path, output: &Path) -> Result<Progress, Box<dyn Error>> {
    let (rank, size) = (session.rank(), session.size());
    let progress = session.open::<Progress>("progress")?;
    let step = session.barrier("step", size)?;
    step.wait()?; // all are here, so that none waits in vain for a rank that has come and failed

    if rank == 0 {
        let image = image::read(input)?;
        let mut hole = session.array::<u8>("pixels", image.pixels.len())?.hole()?;
        hole.copy_from_slice(&image.pixels);
        hole.fill()?;
        progress.store(&Progress {
            width: image.width as u64,
            height: image.height as u64,
            done: 0,
            darkest: 255,
            brightest: 0,
        });
    }
    step.wait()?; // the image is loaded

    let (width, height) = (progress.width() as usize, progress.height() as usize);
    let pixels = session.array::<u8>("pixels", width * height)?;
    let mine = pixels.chunk(rank, size);
    let greys = mine.to_vec();
    progress.darkest_atomic().fetch_min(greys.iter().fold(255, |least, grey| least.min(u32::from(*grey))), SeqCst);
    progress.brightest_atomic().fetch_max(greys.iter().fold(0, |most, grey| most.max(u32::from(*grey))), SeqCst);
    step.wait()?; // all have looked

    let (darkest, brightest) = (progress.darkest() as u8, progress.brightest() as u8);
    for band in 0..BANDS {
        let mut hole = mine.chunk(band, BANDS).hole()?;
        let len = hole.len() as u64;
        image::spread(&mut hole, darkest, brightest);
        hole.fill()?;
        progress.done_atomic().fetch_add(len, SeqCst);
    }
    step.wait()?; // all is stretched

    if rank == 0 {
        image::write(output, &Image { width, height, pixels: pixels.to_vec() })?;
    }
    step.wait()?; // and written
    Ok(progress.load())
}
