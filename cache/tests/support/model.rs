//! What must be in a store, by what processes said before they ended: `put N`, `remove N` before they do it, and
//! `done N` after.

#![allow(unreachable_pub, dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;

/// What must hold of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    There,
    Gone,
    /// Its process ended in the middle of it.
    Either,
}

#[derive(Debug, Default, Clone)]
pub struct Model {
    pub numbers: BTreeMap<u32, Known>,
    pub acknowledged: u64,
    pub slowest_start_us: u64,
}

impl Model {
    /// Takes in what a process said before it ended.
    pub fn take(&mut self, text: &str) {
        let mut intent = None;
        // The last line may be cut short, and then looks like another number.
        for line in text.rsplit_once('\n').map_or("", |(whole, _)| whole).lines() {
            let Some((word, number)) = line.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u32>() else { continue };
            match word {
                "opened" => self.slowest_start_us = self.slowest_start_us.max(number.into()),
                "put" => intent = Some((number, Known::There)),
                "remove" => intent = Some((number, Known::Gone)),
                "done" => {
                    let (meant, known) = intent.take().expect("it said what it was about to do");
                    assert_eq!(meant, number);
                    self.numbers.insert(number, known);
                    self.acknowledged += 1;
                }
                _ => {}
            }
        }
        // A torn line may be the one that said that it was done. A put over an entry leaves one or the other.
        if let Some((number, meant)) = intent
            && self.numbers.get(&number) != Some(&meant)
        {
            self.numbers.insert(number, Known::Either);
        }
    }
}
