//! Time and chance of a test that draws all from a seed; each thread has its own.

use std::cell::Cell;

use rnetkit_drivers::Id;

thread_local! {
    /// Seconds that passed, and how many ids were drawn from the seed.
    static WORLD: Cell<Option<(u64, u64, u64)>> = const { Cell::new(None) };
}

/// From now on nothing else counts on this thread.
pub(crate) fn begin(seed: u64) {
    WORLD.set(Some((1000, seed, 0)));
}

/// Time passes.
pub(crate) fn pass(seconds: u64) {
    WORLD.set(WORLD.get().map(|(passed, seed, drawn)| (passed + seconds, seed, drawn)));
}

pub(super) fn passed() -> Option<u64> {
    WORLD.get().map(|(passed, ..)| passed)
}

pub(super) fn id() -> Option<Id> {
    let (passed, seed, drawn) = WORLD.get()?;
    WORLD.set(Some((passed, seed, drawn + 1)));
    let part = |number: u64| {
        let mixed = (seed << 32 | drawn << 3 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_be_bytes()
    };
    let mut bytes = [0; 32];
    bytes.chunks_mut(8).zip(0..).for_each(|(chunk, number)| chunk.copy_from_slice(&part(number)));
    Some(Id(bytes))
}
