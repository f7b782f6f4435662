/// Whether this is the mutant that is alive: `OBJCACHE_MUTANT`. Notes in the file `OBJCACHE_MUTANTS_REACHED` who asked.
#[doc(hidden)]
#[inline(never)]
pub(crate) fn mutant(number: u32) -> bool {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    static ALIVE: OnceLock<(u32, Option<std::fs::File>)> = OnceLock::new();
    static ASKED: [AtomicBool; MUTANTS] = [const { AtomicBool::new(false) }; MUTANTS];
    let (alive, reached) = ALIVE.get_or_init(|| {
        let number = std::env::var("OBJCACHE_MUTANT").ok().and_then(|number| number.parse().ok());
        let file = std::env::var_os("OBJCACHE_MUTANTS_REACHED")
            .map(|path| std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap());
        (number.unwrap_or(u32::MAX), file)
    });
    if let Some(mut file) = reached.as_ref() {
        if !ASKED[number as usize].swap(true, Relaxed) {
            std::io::Write::write_all(&mut file, format!("{number}\n").as_bytes()).unwrap();
        }
    }
    *alive == number
}
