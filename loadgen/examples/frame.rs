//! Writes one picture of the table as a binary PPM, to look at it:
//! `cargo run --example frame -- out.ppm [width] [ms into the round]`.
//! It also prints how long a frame takes to draw.

use std::io::Write as _;
use std::time::Instant;

use railbird_loadgen::dealer::picture::Picture;
use railbird_loadgen::dealer::rounds::ROUND_MS;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "frame.ppm".to_owned());
    let width: u32 = args.next().map_or(Ok(1280), |text| text.parse())?;
    let elapsed: i64 = args.next().map_or(Ok(7_500), |text| text.parse())?;
    let begun = Instant::now();
    let mut picture = Picture::new("demo", width, width * 9 / 16)?;
    let prepared = begun.elapsed();
    let start = 1_795_000_000_000 / ROUND_MS * ROUND_MS + elapsed;
    let begun = Instant::now();
    for frame in 0..600 {
        picture.draw(start - 20_000 + frame * 100 / 3);
    }
    let per_frame = begun.elapsed() / 600;
    let rgb = picture.draw(start).to_rgb();
    let mut file = std::fs::File::create(&path)?;
    write!(file, "P6\n{width} {}\n255\n", width * 9 / 16)?;
    file.write_all(&rgb)?;
    let mut out = std::io::stderr();
    writeln!(out, "{path}: prepared in {prepared:.1?}, {per_frame:.2?} per frame")?;
    Ok(())
}
