//! A saxpy and a matrix product in C, compiled by clang (or gcc) the first time and loaded afterwards. Both
//! results are checked against Rust's.
//!
//! `cargo run --release --example c_kernels`

use std::error::Error;

use objcache::cache::{Store, StoreOptions};
use objcache::{CommandCompiler, CompileRequest, Engine, Loaded, Source};

fn main() -> Result<(), Box<dyn Error>> {
    let cache = Store::open_or_degrade(StoreOptions::from_environment());
    let engine = Engine::builder(cache, CommandCompiler::find(&objcache::signature::IrKind::C)?).build();
    saxpy(&load(&engine, "saxpy.c")?)?;
    matmul(&load(&engine, "matmul.c")?)
}

fn load(engine: &Engine, name: &str) -> Result<Loaded, Box<dyn Error>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernels/");
    let mut request = CompileRequest::new(Source::read(format!("{folder}{name}"))?);
    request.cpu = Some("native".to_owned());
    request.optimization = objcache::signature::OptLevel::O3;
    let loaded = engine.load(&request)?;
    println!("{name}: {:?}, {:?}", loaded.outcome, loaded.timings);
    Ok(loaded)
}

fn saxpy(loaded: &Loaded) -> Result<(), Box<dyn Error>> {
    type Saxpy = extern "C" fn(i64, f32, *const f32, *mut f32);
    let x: Vec<f32> = (0..10_000).map(|i| i as f32 * 0.5).collect();
    let mut y: Vec<f32> = (0..10_000).map(|i| 1.0 - i as f32).collect();
    // Whether the compiler contracted to a fused multiply-add is its choice; these values are exact in both.
    let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| 2.0 * x + y).collect();

    // SAFETY: this is the signature in saxpy.c, and both arrays have as many elements as it is told.
    let saxpy = unsafe { loaded.image.get::<Saxpy>("saxpy") }?;
    saxpy(x.len() as i64, 2.0, x.as_ptr(), y.as_mut_ptr());
    check("saxpy", y == expected)
}

fn matmul(loaded: &Loaded) -> Result<(), Box<dyn Error>> {
    type Matmul = extern "C" fn(i64, *const f64, *const f64, *mut f64);
    let n = 96;
    // Small integers: every sum is exact, in any order.
    let a: Vec<f64> = (0..n * n).map(|i| f64::from((i * 7 % 13) as u8) - 6.0).collect();
    let b: Vec<f64> = (0..n * n).map(|i| f64::from((i * 5 % 11) as u8) - 5.0).collect();
    let mut c = vec![0.0; n * n];

    // SAFETY: this is the signature in matmul.c, and all three are n × n.
    let matmul = unsafe { loaded.image.get::<Matmul>("matmul") }?;
    matmul(n as i64, a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
    let dot = |i: usize, j: usize| (0..n).map(|k| a[i * n + k] * b[k * n + j]).sum::<f64>();
    check("matmul", (0..n * n).all(|at| c[at] == dot(at / n, at % n)))
}

fn check(what: &str, right: bool) -> Result<(), Box<dyn Error>> {
    match right {
        true => println!("{what}: the result is right"),
        false => return Err(format!("{what}: the result is wrong").into()),
    }
    Ok(())
}
