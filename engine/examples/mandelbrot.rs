//! A kernel in Cranelift's IR draws a picture. The first process compiles it, every later one loads it from
//! the cache.
//!
//! `cargo run --release --example mandelbrot [OUT.png]`

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use objcache::cache::{Store, StoreOptions};
use objcache::{CompileRequest, CraneliftCompiler, Engine, Loaded, Outcome, Source};

const KERNEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernels/mandelbrot.clif");
const SIZE: (u32, u32) = (1200, 800);
const LIMIT: u32 = 1000;

/// Tells the second process that it is the second.
const SECOND: &str = "OBJCACHE_EXAMPLE_SECOND_PROCESS";

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::args_os().nth(1).map_or(PathBuf::from("mandelbrot.png"), PathBuf::from);
    let cache = Store::open_or_degrade(StoreOptions::from_environment());
    let engine = Engine::builder(cache, CraneliftCompiler::new()?).build();
    let loaded = engine.load(&CompileRequest::new(Source::read(KERNEL)?))?;

    let started = Instant::now();
    let pixels = draw(&loaded)?;
    report(&loaded, started);
    write_png(&out, &pixels)?;

    match (loaded.outcome, std::env::var_os(SECOND)) {
        (_, Some(_)) => println!("the picture is in {}", out.display()),
        (Outcome::Miss, None) => start_second_process(&out)?,
        (Outcome::Hit, None) => println!(
            "the picture is in {}; an earlier run had compiled the kernel (`objcache clear` empties the cache)",
            out.display()
        ),
    }
    Ok(())
}

fn draw(loaded: &Loaded) -> Result<Vec<u8>, Box<dyn Error>> {
    type Mandelbrot = extern "C" fn(*mut u8, u32, u32, u32);
    let (width, height) = SIZE;
    let mut pixels = vec![0; width as usize * height as usize * 3];
    // SAFETY: this is the kernel's signature, (i64, i32, i32, i32), and it writes three bytes a pixel.
    let mandelbrot = unsafe { loaded.image.get::<Mandelbrot>("mandelbrot") }?;
    mandelbrot(pixels.as_mut_ptr(), width, height, LIMIT);
    Ok(pixels)
}

fn report(loaded: &Loaded, started: Instant) {
    let took = &loaded.timings;
    let how = match took.compile {
        Some(compile) => format!("compiled it in {compile:.2?} (verified, optimised, stored)"),
        None => format!("found it in the cache in {:.2?}", took.lookup),
    };
    println!(
        "process {}: read the kernel in {:.2?}, {how}, loaded {} bytes of object in {:.2?}, drew in {:.2?}",
        std::process::id(),
        took.prepare,
        loaded.object.len(),
        took.load,
        started.elapsed(),
    );
}

fn start_second_process(out: &Path) -> Result<(), Box<dyn Error>> {
    let status = Command::new(std::env::current_exe()?).arg(out).env(SECOND, "1").status()?;
    if status.success() { Ok(()) } else { Err("the second process failed".into()) }
}

fn write_png(path: &Path, pixels: &[u8]) -> Result<(), Box<dyn Error>> {
    let file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let mut encoder = png::Encoder::new(file, SIZE.0, SIZE.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(pixels)?;
    Ok(())
}
